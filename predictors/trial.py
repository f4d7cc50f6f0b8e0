"""Whether a sealed folder opens where nothing is loaded yet, as in a server: tried in a process of its own.

1. The process knows what is installed and what PYTHONPATH names. The script or notebook of the caller is not there, nor
   is the caller's working directory.
2. It has a limited time, and it ends with its limit even where the caller is gone.
3. What the model prints is no answer.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from signalserve.predictors.errors import PredictorError

SECONDS = 60.0
_TEXT = 600


def tried_in_fresh_process(folder: Path, digest: str, *, seconds: float = SECONDS) -> str:
    """Open a sealed folder by its digest and ask for its golden scores, in a fresh process.

    Gives why a server can't serve it, empty where one can. Unpickles `model.joblib` of a native model.
    """
    # where this package lies, which need not be installed where the interpreter looks by itself
    places = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    process = subprocess.Popen(  # noqa: S603 - this interpreter, a module of ours
        [sys.executable, "-P", "-m", "signalserve.predictors.trial", str(folder), digest, str(seconds)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(place for place in places if place)},
        start_new_session=True,  # Ctrl-C is the caller's to answer, and what the model starts goes with it
    )
    with process:
        try:
            answer, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            _kill(process)
            return f"a fresh process could not open and ask it within {seconds:.0f} s"
        except BaseException:
            _kill(process)
            raise
    text = answer.decode("utf-8", errors="replace")
    if process.returncode:
        last = errors.decode("utf-8", errors="replace").strip().rpartition("\n")[2]
        text = f"the process ended with {process.returncode}" + (f": {last}" if last else "")
    if not text:
        return ""
    # a class of a script or notebook is looked for in the script that runs now, which is this file
    own = "; its class is one of a script or notebook: put it into a module that the server can import"
    return f"a fresh process can't open it: {text[:_TEXT]}" + (own if __name__ in text else "")


def _kill(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)


def _main(folder: str, digest: str, seconds: str) -> None:
    signal.alarm(int(float(seconds)) + 1)
    answer = os.dup(1)
    os.dup2(2, 1)
    from signalserve.predictors.opening import open_predictor  # may take its time, which is limited by now

    try:
        open_predictor(Path(folder), expected_digest=digest)
    except PredictorError as error:
        os.write(answer, str(error).encode("utf-8", errors="replace"))


if __name__ == "__main__":
    _main(*sys.argv[1:])
