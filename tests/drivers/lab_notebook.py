"""JupyterLab's server with a Python kernel: cells that use JupySQL, sent the way Lab's notebook sends them."""

import json
import secrets
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from importlib.metadata import version
from pathlib import Path

import websocket
from adapter import Adapter, NotOffered, main

SETUP = f"""
import sys, json
sys.path.insert(0, {str(Path(__file__).parent)!r})
import adapter, python_jupysql
under_test = python_jupysql.JupySql(get_ipython())
"""
CALL = "print('ANSWER' + json.dumps(adapter.answer(under_test, json.loads({request!r})), default=lambda number: number.item()))"


class Lab(Adapter):
    def __init__(self):
        self.token = secrets.token_hex(16)
        self.server = subprocess.Popen(
            [Path(sys.executable).with_name("jupyter-lab"), "--no-browser", "--ip=127.0.0.1", "--port=0", "--allow-root", f"--IdentityProvider.token={self.token}",
             "--ServerApp.root_dir=/tmp"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        for line in self.server.stderr:
            if "http://127.0.0.1:" in line:
                self.place = line.split("http://", 1)[1].split("/", 1)[0]
                break
        threading.Thread(target=lambda: [None for _ in self.server.stderr], daemon=True).start()
        self.kernel = self.post("/api/kernels", {"name": "python3"})["id"]
        self.socket = websocket.create_connection(f"ws://{self.place}/api/kernels/{self.kernel}/channels?token={self.token}", timeout=300)
        self.cell(SETUP)

    def post(self, path, body=None):
        request = urllib.request.Request(
            f"http://{self.place}{path}", json.dumps(body or {}).encode(), {"Authorization": f"token {self.token}", "Content-Type": "application/json"})
        for _ in range(300):
            try:
                text = urllib.request.urlopen(request, timeout=60).read()
                return json.loads(text) if text else None
            except urllib.error.URLError as error:
                if not isinstance(error.reason, ConnectionRefusedError):
                    raise
                time.sleep(0.1)
        raise RuntimeError("jupyter-lab does not listen")

    def cell(self, code):
        """Runs a cell and returns what it printed."""
        message = uuid.uuid4().hex
        self.socket.send(json.dumps({
            "header": {"msg_id": message, "msg_type": "execute_request", "username": "", "session": "drivers", "version": "5.3"},
            "parent_header": {}, "metadata": {}, "channel": "shell",
            "content": {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}}))
        printed, reply, idle = [], None, False
        # The two come on channels of their own, in either order.
        while reply is None or not idle:
            answer = json.loads(self.socket.recv())
            if answer["parent_header"].get("msg_id") != message:
                continue
            kind, content = answer["msg_type"], answer["content"]
            if kind == "stream" and content["name"] == "stdout":
                printed.append(content["text"])
            elif kind == "execute_reply":
                reply = content
            elif kind == "status":
                idle = content["execution_state"] == "idle"
        if reply["status"] != "ok":
            raise RuntimeError(f"{reply.get('ename')}: {reply.get('evalue')}")
        return "".join(printed)

    def about(self):
        return {name: version(name) for name in ("jupyterlab", "jupysql", "sqlalchemy-adbc", "adbc-driver-flightsql")}

    def ask(self, op, **fields):
        printed = self.cell(CALL.format(request=json.dumps({"op": op, **fields})))
        return json.loads(printed.split("ANSWER", 1)[1])

    def cancel(self, sql, after):
        return self.cancelling(
            lambda: self.cell(f"get_ipython().run_cell_magic('sql', '', {sql!r})"),
            lambda: self.post(f"/api/kernels/{self.kernel}/interrupt"), after)


def forwarded(operation):
    def call(self, **fields):
        found = self.ask(operation, **fields)
        if "not_offered" in found:
            raise NotOffered(found["not_offered"])
        if "error" in found:
            raise RuntimeError(found["error"])
        return found["ok"]
    return call


for operation in ("connect", "close", "run", "query", "update", "drain", "browse", "option", "upload"):
    setattr(Lab, operation, forwarded(operation))


if __name__ == "__main__":
    main(Lab())
