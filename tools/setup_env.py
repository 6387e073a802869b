"""Make `.venv` hold exactly what requirements.lock says, and the project itself; do nothing when it already does.

Runs under the user's own Python with the standard library alone. Locked, so that two `make` at once do not collide.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / ".ready"
SUPPORTED = ((3, 11), (3, 14))


def wanted_key() -> str:
    """Hash of everything that decides what the environment is: its place, its Python and what it must hold."""
    parts = [str(VENV), sys.version, sys.base_prefix]
    parts += [(ROOT / name).read_text() for name in ("requirements.lock", "pyproject.toml", "tools/setup_env.py")]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def is_ready(key: str) -> bool:
    """True when the stamp names this key and the interpreter of the environment really starts."""
    if not STAMP.is_file() or STAMP.read_text() != key:
        return False
    return runs("import geocompress")


def runs(statement: str) -> bool:
    """True when the environment's Python exists, belongs to this very folder, and executes the statement."""
    check = f"import sys; assert sys.prefix == {str(VENV)!r}; {statement}"
    try:
        return subprocess.run([PYTHON, "-c", check], capture_output=True).returncode == 0
    except OSError:
        return False


def install() -> None:
    """Create or mend the environment; a moved or half-made one is made again from nothing."""
    if not runs("import pip"):
        shutil.rmtree(VENV, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
    # the user's Python is used: uv must not fetch another one, nor look for another environment
    env = {**os.environ, "UV_PYTHON_DOWNLOADS": "never", "VIRTUAL_ENV": str(VENV)}
    quiet = ["--disable-pip-version-check", "--quiet"]
    subprocess.run([PYTHON, "-m", "pip", "install", *quiet, "uv>=0.5"], check=True, env=env)
    uv = [VENV / "bin" / "uv", "pip", "install", "--quiet", "--python", PYTHON]
    subprocess.run([*uv, "--require-hashes", "-r", "requirements.lock"], check=True, env=env, cwd=ROOT)
    # its build backend is in the lock, so nothing unlocked is fetched here
    subprocess.run([*uv, "--no-deps", "--no-build-isolation", "-e", "."], check=True, env=env, cwd=ROOT)


def main() -> int:
    """Return 0 when the environment is ready, 1 with a reason otherwise."""
    low, high = SUPPORTED
    if not low <= sys.version_info[:2] < high:
        print(
            f"setup: expected Python {low[0]}.{low[1]} to {high[0]}.{high[1] - 1}, got {sys.version.split()[0]}; "
            "name another one: make PYTHON=python3.12",
            file=sys.stderr,
        )
        return 1
    key = wanted_key()
    with open(ROOT / ".venv.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_ready(key):
            return 0
        print("setup: installing the locked packages into .venv (once; a minute or two)", flush=True)
        STAMP.unlink(missing_ok=True)
        try:
            install()
        except subprocess.CalledProcessError as failure:
            command = " ".join(str(part) for part in failure.cmd[:6])
            print(
                f"setup: `{command} …` ended with status {failure.returncode}; its message stands above. "
                "If a package could not be fetched, check the network and run the same make target again.",
                file=sys.stderr,
            )
            return 1
        STAMP.write_text(key)
    return 0


if __name__ == "__main__":
    sys.exit(main())
