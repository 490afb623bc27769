"""The distributions as a user gets them: built once, and installed without torch into an environment of their own."""

import os
import sys
import venv

import pytest
from projects import PROJECTS, WITH_NUMPY, run


@pytest.fixture(scope="session")
def distributions(tmp_path_factory):
    """Directory with the sdist of every project, and the wheel that was built from that sdist."""
    out = tmp_path_factory.mktemp("distributions")
    for project in PROJECTS.values():
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, project)
    return out


class CleanEnvironment:
    """A virtual environment that has the wheels and what they require, and nothing of this checkout."""

    def __init__(self, root):
        self.root = root
        self._bin = root / "bin"

    def run(self, program, *arguments, check=True, cwd=None):
        """Run one of the environment's programs, by default in the environment's own directory."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PERF_"))}
        path = f"{self._bin}{os.pathsep}{os.environ.get('PATH', '')}"
        return run(self._bin / program, *arguments, check=check, cwd=cwd or self.root, env={**inherited, "PATH": path})

    def pip(self, *arguments):
        """Run the pip beside the tests on the environment, which has none of its own: that would take seconds."""
        return run(sys.executable, "-m", "pip", "--python", self._bin / "python", *arguments)


@pytest.fixture(scope="session")
def clean(distributions, tmp_path_factory):
    """Environment with all wheels installed, without extras; but for the one that brings NumPy."""
    environment = CleanEnvironment(tmp_path_factory.mktemp("environment"))
    venv.create(environment.root)
    wheels = [path for path in distributions.glob("*.whl") if not path.name.startswith(WITH_NUMPY.replace("-", "_"))]
    environment.pip("install", "--quiet", "--no-compile", *sorted(wheels))
    return environment
