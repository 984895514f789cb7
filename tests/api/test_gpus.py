"""Devices that NVML tells of: found, counted, given out one by one, and named to the job that has them.

There is no NVIDIA hardware where this runs: a library of the tests' own answers in the driver's place. What the
server asks, what it makes of the answers and what a job is told are real; that a job computes on a device is not
shown here.
"""

import socket
import sys

import pytest

import nvml
from lathe import ROOT, Server, wait_until
from test_jobs import EVALUATION, MODELLING, job, log, start, wait

sys.path.insert(0, str(ROOT / "examples/tiny-llm"))
import demo  # noqa: E402


@pytest.fixture(scope="module")
def double():
    with nvml.double() as folder:
        yield folder


def server_with(double, **environment):
    """Its CUDA MPS daemon listens, or does not, in the double's folder."""
    return Server(config={"capacity": {"cpu": 16}},
                  environment={"LD_LIBRARY_PATH": str(double), "CUDA_MPS_PIPE_DIRECTORY": str(double), **environment})


@pytest.fixture(scope="module")
def gpu_server(double):
    with server_with(double) as running:
        yield running


def wants(**gpu):
    return [{"cpuNumber": 0, "memory": 0, "gpuResource": gpu}]


def test_whole_devices_are_given_to_one_job_each_and_the_next_one_waits_and_says_why(gpu_server):
    user = gpu_server.new_user()
    command = "echo $CUDA_VISIBLE_DEVICES; while [ ! -e ${output_dir}/go ]; do sleep 0.05; done"
    one, two = (start(user, command, resource=wants(gpuNum=1), outputDir="/out") for _ in range(2))
    for id in (one, two):
        wait(user, id, "running")
        wait_until(lambda: log(user, id), 30, "the job's line")
    assert {log(user, one), log(user, two)} == {"GPU-a\n", "GPU-b\n"}
    left = user.post("/system/config/getRemainResource", {"userId": user.id}).payload
    assert left["remainGpu"] == 0

    three = start(user, "echo $CUDA_VISIBLE_DEVICES", resource=wants(gpuNum=1))
    wait_until(lambda: "GPU" in str(job(user, three)["reason"]), 30, "a reason that names what is missing")
    assert job(user, three)["state"] == "queued"
    user.multipart("/api/file/file/uploadFolder", {"currentPath": "/out"}, [("file", "go", b"")]).ok()
    assert wait(user, three)["state"] == "succeeded"
    assert log(user, three) in ("GPU-a\n", "GPU-b\n")


def test_a_job_without_a_device_sees_none(gpu_server):
    user = gpu_server.new_user()
    id = start(user, "echo \"[$CUDA_VISIBLE_DEVICES]\"; ls /dev | grep -c nvidia")
    wait(user, id)
    assert log(user, id) == "[]\n0\n"


def test_slices_are_given_by_their_profile(gpu_server):
    user = gpu_server.new_user()
    id = start(user, "echo $CUDA_VISIBLE_DEVICES", resource=wants(gpuShare="mig", migRes="1g.10gb", gpuNum=1))
    assert wait(user, id)["state"] == "succeeded"
    assert log(user, id) in ("MIG-1\n", "MIG-2\n")
    answer = user.post(MODELLING, {"command": "true", "resource": wants(gpuShare="mig", migRes="7g.80gb", gpuNum=1)})
    assert answer.json["success"] is False


def test_a_share_needs_a_size_and_a_daemon_that_holds_the_job_to_it(gpu_server, double):
    user = gpu_server.new_user()
    share = wants(gpuShare="vgpu", gpuNum=1, gpuMem=8, gpuCores=25)

    def refused(status, field, resource, path=MODELLING, **more):
        message = user.post(path, {"command": "true", "resource": resource, **more}).expect(status)["message"]
        assert field in message and user.items("/api/v1/jobs") == []
    none = wants(gpuShare="vgpu", gpuNum=1, gpuMem=0, gpuCores=0)
    refused(400, "resource[0].gpuResource.gpuMem", none)
    refused(400, "resource.gpuResource.gpuMem", none[0], EVALUATION, name="x", image="host", outputDir="/x")
    service = {"modelServer": {"name": "s"}, "modelServerVersions": [
        {"command": "x $PORT", "cpu": 1, "memory": 1, "gpu": 1, "gpuShare": "vgpu", "gpuMem": 0, "gpuCores": 0}]}
    create = "/model/modelServer/createModelInferenceServer"
    assert "modelServerVersions[0].gpuMem" in user.post(create, service).expect(400)["message"]

    refused(422, "gpuShare", share)  # nothing there
    service["modelServerVersions"][0]["gpuMem"] = 8
    assert "modelServerVersions[0].gpuShare" in user.post(create, service).expect(422)["message"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as daemon:
        daemon.bind(str(double / "control"))
        daemon.listen()
        one, two = (start(user, "env | grep ^CUDA | sort", resource=share) for _ in range(2))
        for id in (one, two):
            assert wait(user, id)["state"] == "succeeded", log(user, id)
            assert log(user, id) == (f"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=25\nCUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0=8192M\n"
                                     f"CUDA_MPS_PIPE_DIRECTORY={double}\nCUDA_VISIBLE_DEVICES=GPU-a\n")
    answer = user.post(MODELLING, {"command": "true", "resource": share})
    assert answer.status == 422, "its socket is still there, and nobody listens"


@pytest.mark.parametrize("devices, asks, sees", [
    ("all", {"gpuNum": 1, "gpuShare": "none"}, ("GPU-a", "GPU-b")),
    ("mig", {"gpuNum": 1, "gpuShare": "mig", "migRes": ""}, ("MIG-1", "MIG-2")),
    ("none", {"gpuNum": 0, "gpuShare": "none"}, ("",)),
])
def test_the_demo_takes_what_the_machine_has_and_says_where_it_trained(double, capsys, devices, asks, sees):
    with server_with(double, NVML_DOUBLE=devices) as server:
        user = server.new_user()
        api = demo.Api(server.url, quiet=True)
        api.token = user.token

        def train(name, device, cpu=False):
            """A task that names this device as its trainer would; what the demo says, and its log."""
            it = demo.Demo(api, "", None, cpu)
            it.user = {"id": user.id}
            assert it.gpu_resource() == (asks if not cpu else {"gpuNum": 0, "gpuShare": "none"})
            id = it.task(MODELLING, {"name": name, "command": f"echo [$CUDA_VISIBLE_DEVICES]; echo device: {device}"},
                         lambda id: api.post("/kernel/trainOperator/queryTaskInfo", {"taskId": id}, look=True))
            return it.wasted, capsys.readouterr().out, log(user, id).splitlines()[0]

        wasted, said, seen = train("on-cpu", "cpu")
        assert seen in [f"[{each}]" for each in sees]
        assert "on-cpu: trained on cpu\n" in said
        assert (wasted, "did not compute on it" in said) == ((["on-cpu"], True) if asks["gpuNum"] else ([], False))
        wasted, said, _ = train("on-gpu", "cuda:0 NVIDIA Double")
        assert wasted == [] and "on-gpu: trained on cuda:0 NVIDIA Double\n" in said
        assert train("told-so", "cpu", cpu=True)[::2] == ([], "[]")
