"""A production machine without containers, by the files of ``deploy/``: nginx with TLS, two gateways, a worker.

PostgreSQL, Valkey and Kafka are given. The name ``gateway.example`` stands for the machine; clients map it to a port.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from tests.support.children import start_child, stop_child
from tests.support.gateway import ROOT, manage, run_manage, until
from tests.support.ports import free_port, is_listening
from tests.support.production import production_environment
from tests.support.tools import judge, system_tool

NAME = "gateway.example"
_READY_TIMEOUT = 40.0


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for NAME, which is its own authority, and its key."""
    certificate, key = folder / "fullchain.pem", folder / "privkey.pem"
    command = [
        system_tool("openssl", "openssl"),
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
    ]
    command += ["-nodes", "-days", "2", "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    return certificate, key


class Nginx:
    """The proxy of ``deploy/nginx``, on ports of this machine."""

    def __init__(self, directory: Path, *, static: Path, upstreams: list[int]) -> None:
        # Not below pytest's own folders: as root, its workers run as another user, who may not enter those.
        self._temp = Path(tempfile.mkdtemp(prefix="gateway-nginx-"))
        self._temp.chmod(0o755)
        self.port, self.http_port = free_port(), free_port()
        self.log = directory / "nginx.log"
        self.certificate, key = make_certificate(self._temp)
        self.config = self._temp / "nginx.conf"
        self._process: subprocess.Popen[bytes] | None = None
        values = {
            "SITE_NAME": NAME,
            "SITE_UPSTREAMS": " ".join(f"server 127.0.0.1:{port} max_fails=1 fail_timeout=1s;" for port in upstreams),
            "SITE_CERTIFICATE": str(self.certificate),
            "SITE_KEY": str(key),
            "SITE_STATIC": str(static),
            "SITE_HTTP_PORT": f"127.0.0.1:{self.http_port}",
            "SITE_HTTPS_PORT": f"127.0.0.1:{self.port}",
            "SITE_PID": str(self._temp / "nginx.pid"),
            "SITE_TEMP": str(self._temp),
            "SITE_LOG": str(self._temp),
        }
        self.config.write_text(render(values))

    def start(self) -> None:
        command = [system_tool("nginx", "nginx"), "-c", str(self.config), "-g", "daemon off;"]
        self._process = start_child(command, self.log)
        until(lambda: is_listening(self.port) or self._process is None or self._process.poll() is not None, 10)
        assert self._process.poll() is None, self.log.read_text()

    def stop(self) -> None:
        if self._process is not None:
            stop_child(self._process)
            self._process = None
        shutil.rmtree(self._temp, ignore_errors=True)


def render(values: Mapping[str, str]) -> str:
    """nginx.conf as ``deploy/nginx/render`` prints it."""
    system_tool("envsubst", "gettext")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SITE_")}
    command = [str(ROOT / "deploy/nginx/render")]
    return subprocess.run(command, env={**clean, **values}, check=True, capture_output=True, text=True).stdout


class Deployment:
    """Two gateways and a worker behind nginx. ``settings`` names the services."""

    def __init__(self, directory: Path, **settings: str) -> None:
        # Readable for the workers of nginx, as Nginx.
        self.static = Path(tempfile.mkdtemp(prefix="gateway-static-"))
        self.static.chmod(0o755)
        self.mailbox = directory / "mailbox"
        self.mailbox.mkdir()
        self.ports = [free_port(), free_port()]
        self.nginx = Nginx(directory, static=self.static, upstreams=self.ports)
        self._directory = directory
        self.environment = production_environment(
            directory / "state",
            GATEWAY_STATIC_DIR=str(self.static),
            GATEWAY_EMAIL_URL=f"filemail:///{self.mailbox}",
            GATEWAY_TOPIC_REPLICATION="1",
            GATEWAY_HEARTBEAT_PATH=str(directory / "worker.beat"),
            **settings,
        )
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        # Of systemd: what each gateway says of itself. The path of a socket is short.
        self._notify = Path(tempfile.mkdtemp(prefix="gateway-notify-"))
        self._told: dict[int, socket.socket] = {}

    def check(self, **environment: str) -> subprocess.CompletedProcess[str]:
        """What ``check --deploy`` says."""
        return run_manage("check", "--deploy", environment={**self.environment, **environment})

    def manage(self, *arguments: str, **environment: str) -> str:
        return manage(*arguments, environment={**self.environment, **environment})

    def run(self, script: str, *arguments: str, **environment: str) -> None:
        """A script of ``deploy/``, which must succeed."""
        judge(str(ROOT / "deploy" / script), *arguments, environment={**self.environment, **environment})

    def start(self) -> None:
        for port in self.ports:
            self.start_gateway(port)
        command = [sys.executable, str(ROOT / "manage.py"), "worker"]
        self._processes["worker"] = start_child(command, self._directory / "worker.log", self.environment)
        for port in self.ports:
            self.wait_until_told(port, "READY=1")
        self.nginx.start()

    def restart_gateway(self, port: int) -> int:
        """As ``systemctl restart``: the exit status of the drained one, when the new one serves."""
        status = stop_child(self._processes.pop(str(port)), 60)
        self.wait_until_told(port, "STOPPING=1")
        self.start_gateway(port)
        self.wait_until_told(port, "READY=1")
        return status

    def start_gateway(self, port: int) -> None:
        address = self._notify / str(port)
        address.unlink(missing_ok=True)
        self._told[port] = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._told[port].bind(str(address))
        self._told[port].settimeout(_READY_TIMEOUT)
        command = [sys.executable, str(ROOT / "manage.py"), "gateway", "--port", str(port)]
        log = self._directory / f"gateway-{port}.log"
        self._processes[str(port)] = start_child(command, log, {**self.environment, "NOTIFY_SOCKET": str(address)})

    def wait_until_told(self, port: int, state: str) -> None:
        """Until this gateway says so to systemd; ready means that its health check says so too."""
        while self._told[port].recv(100) != state.encode():
            pass
        assert state != "READY=1" or self._is_ready(port), self.logs()

    def is_worker_busy(self) -> bool:
        """As the health check of ``deploy/compose.yaml`` sees it."""
        beat = Path(self.environment["GATEWAY_HEARTBEAT_PATH"])
        return time.time() - beat.stat().st_mtime < 120

    def stop(self) -> None:
        for process in self._processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self._processes.values():
            stop_child(process, 60)
        self.nginx.stop()
        for listener in self._told.values():
            listener.close()
        shutil.rmtree(self._notify, ignore_errors=True)
        shutil.rmtree(self.static, ignore_errors=True)

    def logs(self) -> str:
        return "".join(path.read_text() for path in sorted(self._directory.glob("*.log")))

    def _is_ready(self, port: int) -> bool:
        """As a health check asks: by the address of the process, without the public name."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError as error:
            with error:
                return False
        except OSError:
            return False
