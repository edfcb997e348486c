"""What the numbers were measured on and with, and the tools that have to be there."""

import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from ringproof import Failure, check

from . import ROOT

KAMAILIO = "/usr/sbin/kamailio"
POLICY = Path("/usr/sbin/policy-rc.d")


def output(*command):
    """What a command prints, without the last line end; empty where it fails or is not there."""
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def describe():
    """Machine, commit and Kamailio: name to text."""
    release = platform.freedesktop_os_release().get("PRETTY_NAME", "unknown distribution")
    commit = output("git", "rev-parse", "--short", "HEAD") or "unknown"
    dirty = " with changes" if output("git", "status", "--porcelain", "--untracked-files=no") else ""
    version = output(KAMAILIO, "-v").splitlines()
    return {
        "machine": f"{_model()}, {os.cpu_count()} cores, Linux {platform.release()}, {release}",
        "commit": commit + dirty,
        "kamailio": version[0].removeprefix("version: ").strip() if version else "none",
    }


def _model():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def find_binary(given):
    """The ringproof to measure: the one given, else the release build, made now."""
    if given is None:
        check(shutil.which("cargo"), "there is no cargo to build ringproof: name a binary with --binary")
        built = subprocess.run(["cargo", "build", "--release", "--locked"], cwd=ROOT, check=False)
        check(built.returncode == 0, "ringproof was not built")
        given = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release" / "ringproof"
    binary = Path(given).absolute()
    check(binary.is_file(), f"no binary at {binary}: build it, or name it with --binary")
    helped = subprocess.run([binary, "load", "--help"], capture_output=True, check=False)
    check(helped.returncode == 0, f"{binary} has no `load`: build the present sources")
    return binary


def compile_responder(directory):
    """Compiles the bare responder and returns its path."""
    path = Path(directory) / "bare_responder"
    source = ROOT / "benches" / "bare_responder.c"
    try:
        subprocess.run(["cc", "-O2", "-Wall", "-o", path, source], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Failure(f"the bare responder was not compiled (a C compiler is needed): {error}") from error
    return path


def require_tools():
    """Sees to taskset and Kamailio; the latter is installed where it is missing."""
    check(shutil.which("taskset"), "taskset is not installed (Debian package util-linux)")
    if not Path(KAMAILIO).exists():
        _install_kamailio()
    check(Path(KAMAILIO).exists(), "Kamailio is not installed (Debian package kamailio)")


def _install_kamailio():
    """Kamailio without the server that its package starts on port 5060, now and at each boot."""
    check(shutil.which("apt-get"), "no apt-get here: install Kamailio by hand")
    own_policy = not POLICY.exists()
    try:
        if own_policy:
            with tempfile.NamedTemporaryFile("w", suffix=".policy") as file:
                file.write("#!/bin/sh\nexit 101\n")
                file.flush()
                _as_root("install", "-m", "755", file.name, str(POLICY))
        _as_root("apt-get", "update", "-qq")
        options = ["-y", "-qq", "--no-install-recommends"]
        _as_root("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", *options, "kamailio")
        if shutil.which("systemctl"):
            _as_root("systemctl", "disable", "kamailio.service")
    finally:
        if own_policy:
            _as_root("rm", "-f", str(POLICY))


def _as_root(*command):
    prefix = [] if os.geteuid() == 0 else ["sudo", "-n"]
    ended = subprocess.run([*prefix, *command], stdout=subprocess.DEVNULL, check=False)
    if ended.returncode != 0:
        print(f"`{' '.join(command)}` ended with {ended.returncode}", flush=True)
