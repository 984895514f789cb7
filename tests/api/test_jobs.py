"""Jobs of every kind as real processes: sections 4 to 7 and /api/v1/jobs."""

import http.client
import json
import textwrap
import threading
import time

import pytest

from lathe import wait_until

TUNE = "/kernel/fineTune/createLlmFineTuneTask"
MODELLING = "/kernel/trainOperator/createTask"
EVALUATION = "/model/evaluation/task/create"
ENDED = ("succeeded", "failed", "cancelled")

# The example of 4.1, 5.1 and 6.1 as the text has it.
EXAMPLE = {
    "algorithmId": "", "checkPointDir": "", "command": "", "commands": [],
    "commonHyperParameters": [{"description": "", "name": "", "value": ""}],
    "createWay": "", "dataSetName": "", "datasetVersionId": "", "describe": "", "devices": "",
    "fineTuneHyperParameters": [{"description": "", "name": "", "value": ""}],
    "fineTuneStrategy": "", "hyperparameter": "", "image": "", "inputDir": "", "inputType": "", "isPretrain": 0,
    "isUrgentTask": "", "jobName": "", "llmTrainFramework": "", "modelId": "", "modelVersion": "",
    "modelVersionId": "", "mpiCommand": "", "name": "", "nodeName": [], "originModelDir": "", "outputDir": "",
    "podDelete": 0, "priority": "", "profilePath": "", "rdma": True,
    "resource": [{"cpuNumber": 0, "gpuResource": {"gpuCores": 0, "gpuMem": 0, "gpuNum": 0, "gpuShare": "",
                                                  "migRes": ""},
                  "memory": 0, "nodeType": "", "numbers": 0}],
    "resourceGroupKey": "", "resourceName": "", "resourceType": "", "storageMedium": "", "type": "", "userId": "",
    "userName": "", "variable": [{}], "workingDir": "", "zoneId": "", "zoneName": "",
}


def start(user, command, path=MODELLING, **more):
    """Creates a task; its id."""
    data = user.post(path, {"command": command, **more}).payload
    assert data["id"] == data["taskId"]
    return data["id"]


def job(user, id):
    return user.get(f"/api/v1/jobs/{id}").ok()


def wait(user, id, *states, timeout=60):
    """Waits for one of these states (any end, if none is named); the job then."""
    wanted = states or ENDED
    last = {}

    def reached():
        last.update(job(user, id))
        return last["state"] in wanted or (last["state"] in ENDED and not states)
    try:
        wait_until(reached, timeout, f"state {wanted} of job {id}")
    except AssertionError as error:
        raise AssertionError(f"{error}: {last['state']} {last['reason']}\n{log(user, id)}") from None
    return last


def log(user, id, rank=0, **query):
    return user.get(f"/api/v1/jobs/{id}/logs", query={"rank": rank, **query}).text


def run(user, command, path=MODELLING, **more):
    """Runs a task to its end; the job and its log."""
    id = start(user, command, path, **more)
    return wait(user, id), log(user, id)


def upload(user, name, text):
    folder, _, file = name.rpartition("/")
    user.multipart("/api/file/file/uploadFolder", {"currentPath": "/" + folder},
                   [("file", file, text.encode())]).ok()


def read_file(user, path):
    return user.get("/api/v1/files/content", query={"path": path}).text


# ---- the documented calls ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [TUNE, "/api" + TUNE, MODELLING, "/api" + MODELLING])
def test_the_documented_example_says_what_it_lacks(user, path):
    answer = user.post(path, EXAMPLE).expect(400)
    assert (answer["success"], answer["returnCode"], answer["data"]) == (False, 400, None)
    assert "command" in answer["message"]


@pytest.mark.parametrize("path, detail, list_path", [
    (TUNE, "/kernel/fineTune/queryLlmFineTuneTaskDetail", "/kernel/fineTune/listLlmFineTuneTask"),
    (MODELLING, "/kernel/trainOperator/queryTaskInfo", "/kernel/trainOperator/listTask"),
])
def test_with_a_command_it_runs_and_every_field_comes_back(user, path, detail, list_path):
    answer = user.post(path, {**EXAMPLE, "command": "true"}).ok()
    assert (answer["success"], answer["returnCode"], answer["message"]) == (True, 0, "success")
    id = answer["data"]["id"]
    assert wait(user, id)["state"] == "succeeded"
    shown = user.post(detail, {"taskId": id}).payload
    settled = {"command", "name", "userId", "userName", "zoneId", "zoneName", "resourceGroupKey", "image",
               "outputDir", "checkPointDir"}
    for field, value in EXAMPLE.items():
        if field not in settled:
            assert shown[field] == value, field
    assert shown["userId"] == user.id and shown["zoneName"] == "default" and shown["image"] == "host"
    assert shown["name"] and shown["outputDir"].startswith("/jobs/")
    assert (shown["id"], shown["status"], shown["statusReason"]) == (id, "Succeeded", "Completed")
    assert shown["progress"] == 1 and shown["runTime"].endswith("秒")
    for field in ("createTime", "startTime", "endTime"):
        time.strptime(shown[field], "%Y-%m-%d %H:%M:%S")
    assert user.post(detail + "?taskId=" + id).payload["id"] == id
    assert user.request("POST", detail, f"taskId={id}",
                        {"Content-Type": "application/x-www-form-urlencoded"}).payload["id"] == id

    page = user.post(list_path, {"isPretrain": 0, "pageNum": 0, "pageSize": 0, "status": "", "taskName": "",
                                 "userId": ""}).payload
    assert (page["pageNum"], page["pageSize"], page["totalPage"], page["total"]) == (1, 10, 1, 1)
    row = page["rows"][0]
    assert (row["id"], row["name"], row["status"], row["userId"]) == (id, shown["name"], "Succeeded", user.id)


def test_an_evaluation_as_documented(user):
    upload(user, "bench/run.py", "import sys; open(sys.argv[1] + '/metrics.json', 'w').write('{\"accuracy\": 0.75}')")
    upload(user, "llama2/config.json", "{}")
    request = {
        "userId": user.id, "name": "evaluation-test", "resourceGroupId": None, "resourceGroupName": "default",
        "resourceGroupKey": None, "image": "host", "command": "python3 run.py ${output_dir} ${model_dir}",
        "inputType": "local", "inputDir": "", "modelType": "local", "modelDir": "/llama2", "aiAppVersionId": "",
        "aiAppVersionName": "", "outputDir": "/bench-out", "workDir": "/bench",
        "resource": {"cpuNumber": 1, "memory": 1, "gpuResource": {"gpuShare": "none", "gpuNum": 0, "gpuMem": None,
                                                                  "gpuCores": "", "migRes": ""}},
        "env": None, "description": ""}
    answer = user.post(EVALUATION, request).ok()
    assert answer == {"success": True, "code": 200, "status": 200, "state": 200, "data": None,
                      "message": "创建模型评估任务成功"}
    page = user.post("/model/evaluation/task/page", {"userId": "", "status": "", "taskName": "evaluation"}).payload
    row = page["rows"][0]
    assert set(row) == {"id", "name", "status", "runTime", "description", "creatorId", "createTime"}
    assert len(row["id"]) == 36 and row["creatorId"] == user.id
    assert wait(user, row["id"])["state"] == "succeeded", log(user, row["id"])
    shown = user.get("/api/model/evaluation/task/detail/" + row["id"]).payload
    for field, value in request.items():
        if field not in ("resourceGroupId", "resourceGroupKey", "env", "resource"):
            assert shown[field] == value, field
    assert shown["env"] == "[]" and shown["datasetId"] in (None, "")
    assert shown["resource"] == {"cpuNumber": 1, "memory": 1,
                                 "gpuResource": {"gpuShare": "none", "gpuNum": 0, "gpuMem": None, "gpuCores": None,
                                                 "migRes": ""}}
    assert (shown["id"], shown["status"]) == (row["id"], "Succeeded")
    compared = user.get("/api/v1/job-metrics", query={"ids": row["id"]}).ok()
    assert {"key": "accuracy", "values": [0.75]} in compared["metrics"]


def test_the_documented_empty_evaluation_names_what_is_needed(user):
    answer = user.post(EVALUATION, {"name": None, "image": None, "command": None, "outputDir": None,
                                    "resource": None, "env": None}).expect(400)
    assert answer["code"] == answer["status"] == answer["state"] == 400 and answer["data"] is None
    for field in ("name", "image", "command", "outputDir", "resource"):
        assert field in answer["message"]


def test_lists_filter_by_status_name_and_user(server, user):
    ok, bad = start(user, "true", name="alpha-one"), start(user, "false", name="beta-two")
    wait(user, ok), wait(user, bad)

    def ids(who=user, **filter):
        return [row["id"] for row in who.post("/kernel/trainOperator/listTask", filter).payload["rows"]]
    assert ids() == [bad, ok]
    assert ids(status="Succeeded") == [ok] and ids(status="failed") == [bad] and ids(status="Running") == []
    assert ids(taskName="ALPHA") == [ok] and ids(taskName="%") == []
    assert ids(pageNum=2, pageSize=1) == [ok]
    assert "status" in user.post("/kernel/trainOperator/listTask", {"status": "Sleeping"}).expect(400)["message"]
    assert "pageSize" in user.post("/kernel/trainOperator/listTask", {"pageSize": 501}).expect(400)["message"]
    other = server.new_user()
    assert ids(other) == []
    user.post("/kernel/trainOperator/listTask", {"userId": other.id}).expect(403)
    assert set(ids(server.admin, pageSize=500)) >= {ok, bad}
    assert ids(server.admin, userId=user.id) == [bad, ok]
    assert [row["id"] for row in user.items("/api/v1/jobs", size=1)] == [bad, ok]


def test_nobody_sees_or_touches_the_jobs_of_others(server, user):
    id = start(user, "sleep 60")
    other = server.new_user()
    for method, path in (("GET", ""), ("GET", "/events"), ("GET", "/metrics"), ("GET", "/checkpoints"),
                         ("GET", "/logs"), ("POST", "/stop"), ("POST", "/retry"), ("DELETE", "")):
        other.send(method, f"/api/v1/jobs/{id}{path}").expect(404)
    other.post("/kernel/trainOperator/queryTaskInfo", {"taskId": id}).expect(404)
    other.get("/api/v1/job-metrics", query={"ids": id}).expect(404)
    other.post(MODELLING, {"command": "true", "userId": user.id}).expect(403)
    assert server.client().get(f"/api/v1/jobs/{id}").status == 401
    server.admin.post(f"/api/v1/jobs/{id}/stop").ok()
    assert wait(user, id)["state"] == "cancelled"


def test_an_idempotency_key_creates_one_job(user):
    headers = {"Idempotency-Key": "once"}
    first = user.post(MODELLING, {"command": "true"}, headers=headers).payload["id"]
    assert user.post(MODELLING, {"command": "true"}, headers=headers).payload["id"] == first
    assert len(user.items("/api/v1/jobs")) == 1


# ---- what runs -----------------------------------------------------------------------------------------------


def test_a_job_finds_its_directories_parameters_and_environment(user):
    upload(user, "code/train.py", textwrap.dedent("""
        import json, os, sys
        print("argv", json.dumps(sys.argv[1:]))
        print("cwd", os.getcwd(), "input", open(os.environ["input_dir"] + "/a.txt").read())
        print("hyper", os.environ["HYPER_PARAMETERS"], "mine", os.environ["MINE"])
        open(os.environ["output_dir"] + "/result.txt", "w").write("done")
        """))
    upload(user, "data/a.txt", "hello")
    upload(user, "config/LoRA/config.json", json.dumps({
        "commonHyperParameters": [{"description": "", "name": "learning_rate", "value": "1e-4"},
                                  {"description": "", "name": "num_train_epochs", "value": "1"}],
        "fineTuneHyperParameters": [{"description": "", "name": "lora_r", "value": "8"}],
        "fineTuneStrategy": "LoRA"}))
    ended, text = run(user, "python3 train.py --rate ${learning_rate} --in ${input_dir}", TUNE,
                      workingDir="/code", inputDir="/data", outputDir="/results/one",
                      profilePath="/config/LoRA/config.json",
                      commonHyperParameters=[{"name": "learning_rate", "value": "a b; $(id)"}],
                      variable=[{"name": "MINE", "value": "x"}])
    assert ended["state"] == "succeeded", text
    assert json.loads(text.split("argv ")[1].splitlines()[0]) == [
        "--rate", "a b; $(id)", "--in", "/workspace/input", "--num_train_epochs", "1", "--lora_r", "8"]
    assert "cwd /workspace/code input hello" in text and "mine x" in text
    assert json.loads(text.split("hyper ")[1].split(" mine")[0]) == {
        "learning_rate": "a b; $(id)", "num_train_epochs": "1", "lora_r": "8"}
    assert read_file(user, "/results/one/result.txt") == "done"
    assert ended["spec"]["strategy"] == "LoRA"


@pytest.mark.parametrize("command, state, reason", [
    ("echo fine", "succeeded", "Completed"),
    ("echo broken; exit 7", "failed", "ExitCode 7"),
    ("no-such-program", "failed", "ExitCode 127"),
    ("exec python3 -c 'import os; os.kill(os.getpid(), 11)' #", "failed", "Signal 11"),
])
def test_every_end_has_its_reason(user, command, state, reason):
    ended, _ = run(user, command)
    assert (ended["state"], ended["reason"]["label"]) == (state, reason)
    events = user.get(f"/api/v1/jobs/{ended['id']}/events").ok()["items"]
    assert [event["state"] for event in events][0] == "starting" and events[-1]["state"] == state
    if state == "failed" and "echo" in command:
        assert "broken" in events[-1]["log"]


def test_out_of_memory_is_told_apart(server, user):
    ended, text = run(user, "python3 -c 'x = bytearray(3 << 30); print(len(x))' #",
                      resource=[{"cpuNumber": 1, "memory": 1}])
    if "memory" in server.log_text() and ended["state"] == "succeeded":
        pytest.skip("this machine cannot hold a job to its memory")
    assert ended["reason"]["label"] == "OutOfMemory", text


def test_a_time_limit_ends_a_job(user):
    ended, _ = run(user, "sleep 600", timeLimit=1)
    assert ended["reason"]["label"] == "TimeLimit" and ended["status"] == "Failed"


def test_stopping_is_polite_first(user):
    id = start(user, "trap 'echo saved; exit 0' TERM; echo ready; while :; do sleep 0.05; done")
    wait_until(lambda: "ready" in log(user, id), what="the job's first line")
    user.post(f"/api/v1/jobs/{id}/stop").ok()
    ended = wait(user, id)
    assert (ended["status"], ended["reason"]["label"]) == ("Stopped", "StoppedByUser")
    assert "saved" in log(user, id)
    user.post(f"/api/v1/jobs/{id}/stop").expect(409)


def test_a_retry_goes_on_from_the_newest_checkpoint(user):
    id = start(user, textwrap.dedent("""
        if [ -n "$RESUME" ]; then echo "from $RESUME_FROM_CHECKPOINT"; exit 0; fi
        for step in 5 10; do
          mkdir -p ${checkpoint_dir}/checkpoint-$step && echo "{}" > ${checkpoint_dir}/checkpoint-$step/trainer_state.json
        done
        exit 3
        """), TUNE)
    assert wait(user, id)["reason"]["label"] == "ExitCode 3"
    points = user.get(f"/api/v1/jobs/{id}/checkpoints").ok()["items"]
    assert [point["step"] for point in points] == [10, 5]
    managed = user.post("/kernel/fineTuneManage/listFineTuneTaskManage", {"isPretrain": 0}).payload["rows"][0]
    assert [point["step"] for point in managed["checkpoints"]] == [10, 5] and managed["registered"] is False
    user.post(f"/api/v1/jobs/{id}/retry").ok()
    again = wait(user, id)
    assert (again["state"], again["attempt"], len(again["runs"])) == ("succeeded", 2, 2)
    assert "from /workspace/checkpoint/checkpoint-10" in log(user, id)
    assert "from" not in log(user, id, attempt=1)


def test_a_checkpoint_that_was_cut_off_is_neither_listed_nor_gone_on_from(user):
    upload(user, "cut/t.py", textwrap.dedent("""
        import json, os, struct, sys, time
        if os.environ.get("RESUME"):
            sys.exit(print("from", os.environ.get("RESUME_FROM_CHECKPOINT")))
        header = json.dumps({"w": {"dtype": "F32", "shape": [100], "data_offsets": [0, 400]}}).encode()
        weights = struct.pack("<Q", len(header)) + header + bytes(400)

        def save(step, weights):
            folder = os.path.join(os.environ["checkpoint_dir"], f"checkpoint-{step}")
            os.makedirs(folder)
            with open(folder + "/model.safetensors", "wb") as file:
                file.write(weights)
            return folder

        save(5, weights)
        save(10, weights[:-1])
        os.makedirs(os.path.join(os.environ["checkpoint_dir"], "checkpoint-15"))
        slow = save(7, weights[:100])
        print("writing", flush=True)
        while not os.path.exists(os.environ["output_dir"] + "/go"):
            time.sleep(0.02)
        with open(slow + "/model.safetensors", "ab") as file:
            file.write(weights[100:])
        sys.exit(3)
        """))
    id = start(user, "python3 t.py", TUNE, workingDir="/cut", outputDir="/cut-out", checkPointDir="/cut-points")

    def points():
        return [(point["step"], point["sizeBytes"]) for point in
                user.get(f"/api/v1/jobs/{id}/checkpoints").ok()["items"]]
    wait_until(lambda: "writing" in log(user, id) and points(), what="the first checkpoint")
    whole = points()[0][1]
    time.sleep(1.5)  # the server has looked again
    assert points() == [(5, whole)] and whole > 400
    upload(user, "cut-out/go", "")
    assert wait(user, id)["reason"]["label"] == "ExitCode 3"
    assert points() == [(7, whole), (5, whole)]
    managed = user.post("/kernel/fineTuneManage/listFineTuneTaskManage", {"isPretrain": 0}).payload["rows"][0]
    assert [point["step"] for point in managed["checkpoints"]] == [7, 5]
    user.post(f"/api/v1/jobs/{id}/retry").ok()
    assert wait(user, id)["state"] == "succeeded"
    assert log(user, id) == "from /workspace/checkpoint/checkpoint-7\n"


@pytest.mark.parametrize("field", ["trainTaskVersionId", "llmFineTuneTaskId"])
def test_one_checkpoint_of_several_becomes_a_model_version(user, field):
    id = start(user, textwrap.dedent("""
        for step in 5 10; do
          mkdir ${checkpoint_dir}/checkpoint-$step && echo $step > ${checkpoint_dir}/checkpoint-$step/weights.npz
        done
        """), TUNE)
    assert wait(user, id)["state"] == "succeeded"
    point = user.get(f"/api/v1/jobs/{id}/checkpoints").ok()["items"][1]
    assert point["step"] == 5 and point["modelVersionIds"] == []
    made = user.post("/model/aiApplication/createAiApplication", {
        "application": {"name": "from-checkpoint"},
        "aiApplicationVersionList": [{"version": "1", "source": 1, "saveType": 2, field: point["id"]}]}).payload
    version = made["aiApplicationVersionList"][0]["id"]

    def shown():
        row = user.get("/model/aiApplicationVersion/getAiApplicationVersionDetail",
                       query={"aiApplicationVersionId": version}).payload
        assert row["status"] != 3, row
        return row["status"] == 2 and row
    assert wait_until(shown, what="the import")[field] == point["id"]
    assert user.get(f"/api/v1/jobs/{id}/checkpoints").ok()["items"][1]["modelVersionIds"] == [version]
    ended, text = run(user, "cat ${model_dir}/weights.npz", TUNE, modelVersionId=version)
    assert (ended["state"], text) == ("succeeded", "5\n"), "it is the one that was named"


def test_ranks_know_each_other_and_have_logs_of_their_own(user):
    resource = [{"cpuNumber": 1, "memory": 1, "nodeType": "master", "numbers": 1},
                {"cpuNumber": 1, "memory": 1, "nodeType": "worker", "numbers": 1}]
    code = textwrap.dedent("""
        import os, socket
        rank, place = int(os.environ["RANK"]), (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
        if rank == 0:
            server = socket.create_server(place)
            peer, _ = server.accept()
            print("rank 0 heard", peer.recv(100).decode())
        else:
            while True:
                try:
                    peer = socket.create_connection(place, timeout=20)
                    break
                except ConnectionRefusedError:
                    pass
            peer.sendall(f"rank {rank} of {os.environ['WORLD_SIZE']}".encode())
            print("rank 1 spoke")
        """)
    upload(user, "gang/gang.py", code)
    ended, first = run(user, "python3 gang.py", workingDir="/gang", resource=resource)
    second = log(user, ended["id"], rank=1)
    assert ended["state"] == "succeeded", first + second
    assert "rank 0 heard rank 1 of 2" in first and "rank 1 spoke" in second
    user.get(f"/api/v1/jobs/{ended['id']}/logs", query={"rank": 2}).expect(400)


def test_one_failed_rank_ends_the_gang(user):
    resource = [{"cpuNumber": 1, "memory": 1, "numbers": 2}]
    ended, _ = run(user, "if [ $RANK = 1 ]; then exit 9; fi; sleep 600", resource=resource)
    assert (ended["reason"]["label"], ended["reason"]["rank"]) == ("ExitCode 9", 1)


def test_a_log_is_followed_live_to_its_end(user):
    upload(user, "gate/wait.sh", "echo first; while [ ! -e go ]; do sleep 0.02; done; echo second")
    id = start(user, "sh wait.sh", workingDir="/gate")
    wait(user, id, "running")
    connection, answer = user.stream("GET", f"/api/v1/jobs/{id}/logs?follow=true")
    assert answer.fp.readline() is not None  # the first chunk's length line comes while the job runs
    seen = answer.fp.readline()
    assert seen == b"first\n" and job(user, id)["state"] == "running"
    connection.close()
    events, answer = user.stream("GET", f"/api/v1/jobs/{id}/logs?follow=true", headers={"Accept": "text/event-stream"})
    assert answer.getheader("Content-Type").startswith("text/event-stream")
    assert answer.readline() == b"data: first\n"
    upload(user, "gate/go", "")
    rest = answer.read().decode()
    assert "data: second\n" in rest and rest.endswith("event: end\ndata: \n\n")
    events.close()
    assert log(user, id, tail=1) == "second\n"


def test_metrics_and_progress_come_from_the_trainers_own_words(user):
    code = textwrap.dedent("""
        import sys, time
        for step in range(1, 5):
            print({'loss': 4.0 / step, 'learning_rate': 1e-4, 'epoch': step / 4, 'step': step})
            print(f"{step * 25}%|##| {step}/4 [00:00<00:00]", file=sys.stderr)
        """)
    upload(user, "hf/t.py", code)
    ended, text = run(user, "python3 t.py", TUNE, workingDir="/hf")
    assert ended["state"] == "succeeded", text
    metrics = user.get(f"/api/v1/jobs/{ended['id']}/metrics", query={"name": "loss"}).ok()["items"]
    assert [(point["step"], point["value"]) for point in metrics] == [(1, 4.0), (2, 2.0), (3, 4.0 / 3), (4, 1.0)]
    latest = user.get(f"/api/v1/jobs/{ended['id']}/metrics", query={"latest": "true"}).ok()["items"]
    assert {point["key"]: point["value"] for point in latest}["loss"] == 1.0


def test_jobs_are_compared_metric_by_metric(server, user):
    def evaluated(metrics):
        ended, text = run(user, "echo '" + json.dumps(metrics) + "' > ${output_dir}/metrics.json")
        assert ended["state"] == "succeeded", text
        return ended["id"]
    base, tuned = evaluated({"perplexity": 21.5, "accuracy": 0.5}), evaluated({"perplexity": 17.875, "bleu": 30})
    silent = run(user, "true")[0]["id"]
    compared = user.get("/api/v1/job-metrics", query={"ids": f"{base},{tuned},{silent}"}).ok()
    assert [row["id"] for row in compared["jobs"]] == [base, tuned, silent]
    assert {row["key"]: row["values"] for row in compared["metrics"]} == {
        "perplexity": [21.5, 17.875, None], "accuracy": [0.5, None, None], "bleu": [None, 30, None]}
    turned = user.get("/api/v1/job-metrics", query={"ids": f"{tuned},{base}"}).ok()
    assert {"key": "perplexity", "values": [17.875, 21.5]} in turned["metrics"]
    other = run(server.admin, "true")[0]["id"]
    user.get("/api/v1/job-metrics", query={"ids": f"{base},{other}"}).expect(404)


def test_a_job_reads_a_dataset_that_its_owner_alone_may_change(server, user):
    owner = server.new_user()
    upload(owner, "corpus/train/a.txt", "first ")
    upload(owner, "better/train/a.txt", "second ")
    made = owner.post("/api/v1/datasets", {"name": "corpus-" + owner.name, "path": "/corpus", "version": "v1"}).created()
    owner.post(f"/api/v1/datasets/{made['id']}/versions", {"path": "/better", "version": "v2"}).created()
    versions = {each["version"]: each["id"] for each in owner.items(f"/api/v1/datasets/{made['id']}/versions")}
    command = "cat ${input_dir}/train/a.txt; touch ${input_dir}/mine 2>/dev/null && echo written; exit 0"

    def read(who, path=MODELLING, **named):
        return run(who, command, path, inputType="dataset", **named)[1]
    assert read(owner, datasetVersionId=versions["v1"]) == "first "
    assert read(owner, TUNE, dataSetName="corpus-" + owner.name) == "second ", "the newest version"
    user.post(MODELLING, {"command": "true", "inputType": "dataset", "datasetVersionId": versions["v1"]}).expect(404)
    owner.patch(f"/api/v1/datasets/{made['id']}", {"public": True}).ok()
    assert read(user, datasetVersionId=versions["v2"]) == "second "
    evaluation = {"name": "on-a-dataset", "image": "host", "command": command, "outputDir": "/on-a-dataset",
                  "inputType": "dataset", "datasetId": made["id"], "resource": {"cpuNumber": 1, "memory": 1}}
    user.post(EVALUATION, evaluation).ok()
    task = user.post("/model/evaluation/task/page", {"taskName": "on-a-dataset"}).payload["rows"][0]["id"]
    assert wait(user, task)["state"] == "succeeded" and log(user, task) == "second "


def test_a_job_sees_nothing_of_others_or_of_the_server(server, user):
    other = server.new_user()
    upload(other, "secret/key.txt", "nobody's business")
    ended, text = run(user, f"cat /proc/1/environ | tr '\\0' '\\n'; ls {server.data} {server.data}/users; env")
    assert "nobody's business" not in text and "lathe.db" not in text
    assert "LATHE_ADMIN_PASSWORD" not in text and server.admin_password not in text


# ---- who may run ---------------------------------------------------------------------------------------------


def test_a_quota_makes_wait_then_run(server, user):
    server.admin.put(f"/api/v1/users/{user.id}/quota", {"cpu": 1, "jobs": 1}).ok()
    first, second = start(user, "sleep 600"), start(user, "true")
    wait(user, first, "running")
    wait_until(lambda: (job(user, second)["reason"] or {}).get("code") == "WaitingForQuota", what="the reason")
    row = user.post("/kernel/trainOperator/listTask", {"status": "Pending"}).payload["rows"][0]
    assert (row["id"], row["statusReason"]) == (second, "WaitingForQuota") and row["statusMessage"]
    left = user.post("/system/config/getRemainResource", {"userId": user.id}).payload
    assert (left["remainCpu"], left["remainJobNum"]) == (0, 0)
    answer = user.post(MODELLING, {"command": "true", "resource": [{"cpuNumber": 2}]}).expect(422)
    assert answer["success"] is False and answer["data"] is None
    user.post(f"/api/v1/jobs/{first}/stop").ok()
    assert wait(user, second)["state"] == "succeeded"
    left = user.post("/system/config/getRemainResource", {"userId": user.id}).payload
    assert (left["remainCpu"], left["remainJobNum"]) == (1, 1)


def test_more_than_there_is_is_refused_at_the_door(user):
    for resource in ({"cpuNumber": 4096}, {"memory": 65536}, {"gpuResource": {"gpuNum": 1000}}):
        user.post(MODELLING, {"command": "true", "resource": [resource]}).expect(422)
    assert user.items("/api/v1/jobs") == []


@pytest.mark.parametrize("field, value", [
    ("name", "a;b"), ("name", "x" * 200), ("workingDir", "../up"), ("workingDir", "/not-there"),
    ("outputDir", "a/../../b"), ("checkPointDir", "\u0000"), ("inputDir", "/not-there"),
    ("originModelDir", "/not-there"), ("profilePath", "/not-there.json"), ("image", "$(id)"),
    ("image", "no-such-image:1"), ("zoneId", "no-such-group"), ("zoneName", "none of that name"),
    ("resourceGroupKey", "nokey"), ("algorithmId", "../x"), ("modelVersionId", "0123"), ("datasetVersionId", "0123"),
    ("type", "Caffe"), ("priority", "very"), ("isPretrain", 5), ("rdma", "perhaps"), ("timeLimit", -1),
    ("variable", [{"name": "A-B", "value": "1"}]), ("variable", [{"LD_PRELOAD": "/tmp/x.so"}]),
    ("commonHyperParameters", [{"name": "a b", "value": "1"}]), ("resource", [{"cpuNumber": "many"}]),
    ("resource", [{"memory": -1}]), ("resource", [{"nodeType": "boss"}]), ("resource", "none"),
    ("command", "echo ${unknown}"), ("command", ["x"]),
])
def test_a_wrong_field_is_named_and_nothing_is_created(user, field, value):
    task = {"command": "true", **({"inputType": "dataset"} if field == "datasetVersionId" else {}), field: value}
    answer = user.post(TUNE, task)
    assert 400 <= answer.status < 500, answer
    message = answer.json["message"]
    shown = field if field != "image" or "image" in message else "image"
    assert shown in message, answer
    assert answer.json["success"] is False and answer.json["data"] is None
    assert user.items("/api/v1/jobs") == []


# ---- the server goes and comes -------------------------------------------------------------------------------


def test_kill_9_loses_no_job_no_line_and_no_exit_code(own_server):
    user = own_server.new_user()
    upload(user, "gate/wait.sh", "echo before; while [ ! -e go ]; do sleep 0.02; done; echo after; exit 5")
    ended_meanwhile = start(user, "sleep 1; echo unheard; exit 6")
    running = start(user, "sh wait.sh", workingDir="/gate")
    wait(user, running, "running"), wait(user, ended_meanwhile, "running")
    own_server.kill()
    time.sleep(1.5)  # what happens while nobody looks
    own_server.start()
    user.host, user.port = own_server.admin.host, own_server.admin.port
    ended = wait(user, ended_meanwhile)
    assert ended["reason"]["label"] == "ExitCode 6" and log(user, ended_meanwhile) == "unheard\n"
    assert job(user, running)["state"] == "running" and job(user, running)["attempt"] == 1
    upload(user, "gate/go", "")
    assert wait(user, running)["reason"]["label"] == "ExitCode 5"
    assert log(user, running) == "before\nafter\n"


def test_kill_9_during_submissions_keeps_what_was_acknowledged(own_server):
    user = own_server.new_user()
    acknowledged = []

    def submit():
        try:
            for _ in range(200):
                acknowledged.append(start(user, "echo ran >> ${output_dir}/count", outputDir="/counts/" + str(len(acknowledged))))
        except (OSError, http.client.HTTPException, AssertionError):
            pass  # the server is gone

    thread = threading.Thread(target=submit)
    thread.start()
    wait_until(lambda: len(acknowledged) > 5, what="some submissions")
    own_server.kill()
    thread.join()
    own_server.start()
    user.host, user.port = own_server.admin.host, own_server.admin.port
    for number, id in enumerate(list(acknowledged)):
        assert wait(user, id, timeout=120)["state"] == "succeeded"
        assert read_file(user, f"/counts/{number}/count") == "ran\n", "nothing runs twice"


def test_a_deleted_job_leaves_its_output_to_its_user(user):
    ended, _ = run(user, "echo kept > ${output_dir}/file", outputDir="/kept")
    user.delete(f"/api/v1/jobs/{ended['id']}").gone()
    user.get(f"/api/v1/jobs/{ended['id']}").expect(404)
    assert read_file(user, "/kept/file") == "kept\n"
