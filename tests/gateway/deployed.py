"""Deploys small programs as services of a running server."""

import contextlib
import fcntl
import json
import pathlib
import tempfile

import lathe

HERE = pathlib.Path(__file__).resolve().parent


@contextlib.contextmanager
def one_at_a_time():
    """Servers that know nothing of each other would give the same free port to two replicas."""
    with open(pathlib.Path(tempfile.gettempdir()) / "lathe-test-ports.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def deploy(server, name, command, method="rest", path=""):
    """Starts a service of one replica by a shell command that takes $PORT; gives back its id and its port."""
    with one_at_a_time():
        return deploy_now(server, name, command, method, path)


def deploy_now(server, name, command, method, path):
    made = server.admin.post("/model/modelServer/createModelInferenceServer", {
        "modelServer": {"name": name, "createUser": server.admin.id, "path": path},
        "modelServerVersions": [{"command": command, "cpu": 1, "memory": 1, "image": "host", "rate": 100,
                                 "predictMinReplicas": 1, "predictMaxReplicas": 1, "reqMethod": method}]})
    service = made.payload["id"]

    def ready():
        return [r for r in server.admin.get(f"/api/v1/deployments/{service}/replicas").ok()["items"]
                if r["state"] == "ready"]

    replica = lathe.wait_until(ready, what=f"the replica of {name}")[0]
    return service, replica["port"]


def stop(server, service):
    """The replica's process would outlive the server."""
    lathe.wait_until(lambda: server.admin.delete(f"/api/v1/deployments/{service}").status in (204, 404),
                     what="the replica's end")


def python_command(file):
    """Runs a program of this folder, which the replica itself may not be able to read."""
    return f"cat > /tmp/{file} <<'THE_END'\n{(HERE / file).read_text()}\nTHE_END\nexec python3 /tmp/{file} $PORT"


def nginx_command(log):
    return f"""mkdir -p /tmp/up-$PORT; cat > /tmp/up-$PORT/conf <<THE_END
daemon off; master_process off; pid /tmp/up-$PORT/pid; error_log /dev/stderr error;
events {{}}
http {{
  log_format one escape=json '\\$request';
  access_log {log} one;
  client_body_temp_path /tmp/up-$PORT/b; proxy_temp_path /tmp/up-$PORT/p; fastcgi_temp_path /tmp/up-$PORT/f;
  uwsgi_temp_path /tmp/up-$PORT/u; scgi_temp_path /tmp/up-$PORT/s;
  client_max_body_size 0;
  server {{ listen 127.0.0.1:$PORT; location / {{ return 200 "\\$request_method \\$request_uri"; }} }}
}}
THE_END
exec nginx -c /tmp/up-$PORT/conf"""


def seen(server, name):
    return json.loads(server.admin.get(f"/serve/{name}/__seen").body)
