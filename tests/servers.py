"""Servers that tests start on this machine: MLflow's, a proxy in front of it, and one that answers as S3 does."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class MlflowServer:
    """An MLflow server process on this machine; ``stop`` kills it as a crash would, and ``start`` may follow.

    With a password it asks for that and the user admin, as those of cluster.yaml and kuberay.yaml do.
    """

    def __init__(self, folder: Path, password: str = "") -> None:
        self._folder, self._password = folder, password
        self._port = free_port()
        self.uri = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self._folder}/server.db"]
        command += ["--artifacts-destination", str(self._folder / "files")]
        secrets = {}
        if self._password:
            command += ["--app-name", "basic-auth"]
            secrets = {"MLFLOW_AUTH_ADMIN_PASSWORD": self._password, "MLFLOW_FLASK_SERVER_SECRET_KEY": "key"}
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self._folder,  # where basic-auth keeps its users
                env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", **secrets},
                stdout=log,
                stderr=log,
                start_new_session=True,  # a process group, so that ``stop`` also kills its children
            )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=1):
                    return
            except OSError:
                time.sleep(0.1)
        raise AssertionError(f"no MLflow server: {(self._folder / 'server.log').read_text()[-2000:]}")

    def stop(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


class S3Server:
    """An S3 server without buckets; ``environment`` has the variables of AWS with which it is reached."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://{address}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def make_bucket(self, name: str) -> None:
        """Makes an empty bucket; OSError while the server does not answer."""
        urllib.request.urlopen(urllib.request.Request(f"http://{self.address}/{name}", method="PUT"), timeout=30)


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """A running server with an empty bucket named ``bucket``; it logs to ``folder``."""
    port = free_port()
    server, log = S3Server(f"127.0.0.1:{port}"), folder / "s3.log"
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 300
        while True:
            try:
                server.make_bucket("bucket")
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-2000:]
                time.sleep(0.2)
        yield server
    finally:
        process.kill()
        process.wait()


class Front:
    """A server in front of another one, as a proxy is: it passes everything on, or answers itself while told to.

    Attributes:
        uri: its address.
        answer: status, content type and text that it answers with instead; None passes requests on.
        silence: seconds that it waits before it answers anything.
    """

    def __init__(self, behind: str) -> None:
        self.answer: tuple[int, str, str] | None = None
        self.silence = 0.0
        front = self

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                time.sleep(front.silence)
                if front.answer is not None:
                    status, kind, text = front.answer
                    found = text.encode()
                else:
                    headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
                    method = self.command
                    request = urllib.request.Request(behind + self.path, body or None, headers, method=method)
                    try:
                        with urllib.request.urlopen(request, timeout=30) as passed:
                            status, found = passed.status, passed.read()
                    except urllib.error.HTTPError as refused:
                        status, found = refused.code, refused.read()
                    kind = "application/json"
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(found)))
                self.end_headers()
                self.wfile.write(found)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
