"""Third-party plugins that raise, exit, hang, print, or take a name: each spoils itself, and `list` says why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ssl_bench import registry
from ssl_bench.registry.entry_points import Plugin
from ssl_bench.registry.own_process import why_broken
from ssl_bench.registry.third_party import BrokenPlugin, foreign_code
from tests.toy import write_image_folder

GOOD = '''"""Fine (unpublished)."""
from ssl_bench.method import Method
from ssl_bench.settings import Settings

class Good(Method):
    """Good: does nothing wrong."""
    Config = Settings
    make_views = step = networks = None
'''
THIRD_PARTY = {
    "exits": ("import sys; sys.exit('bye')", "SystemExit: bye"),
    "hangs": ("import time\ntime.sleep(1000)", "it hangs, it is not imported after 3 s"),
    "dies": ("import os; os._exit(7)", "ends the process that imports it (7)"),
    "prints": (f"print('hello from outside')\n{GOOD}", ""),
    "typo": ("def broken(:", "line 1, is not Python"),
}
"""What `list --check` tries, and what it says."""
IN_PROCESS = {
    "raises": ("raise RuntimeError('no license')", "RuntimeError: no license"),
    "interrupts": ("class Stop(KeyboardInterrupt): pass\nraise Stop('now')", "Stop: now"),
    "swallows": ("import time\nwhile True:\n    try: time.sleep(9)\n    except Exception: pass", "it hangs"),
    "unwritten": ("", "has no attribute 'Good'"),
    "shapeless": ("Good = 3", "is not a Method"),
}


def lay(folder: Path, name: str, entry_points: str) -> None:
    info = folder / f"{name}_bench-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-bench\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of distributions as pip lays them, each broken in one way."""
    site = tmp_path_factory.mktemp("site")
    for name, (source, _) in THIRD_PARTY.items():
        (site / f"outside_{name}.py").write_text(source)
        lay(site, name, f"[ssl_bench.methods.v1]\n{name} = outside_{name}:Good\n")
    (site / "outside_good.py").write_text(GOOD)
    lay(
        site,
        "thief",
        "[ssl_bench.methods.v1]\ndino = outside_hangs:Good\n[ssl_bench.datasets.v1]\nshapes = outside_hangs:Good\n",
    )
    lay(site, "ancient", "[ssl_bench.methods.v0]\nancient = outside_hangs:Good\n")
    lay(site, "future", "[ssl_bench.methods.v2]\nfuture = outside_hangs:Good\n")
    lay(site, "singular", "[ssl_bench.method.v1]\nsingular = outside_good:Good\n")
    lay(site, "missing", "[ssl_bench.methods.v1]\nmissing = outside_not_there:Good\nnameless = outside_good\n")
    lay(site, "garbled", "]]]\nthis is = no ini file at all\n[[[")
    return site


def sslbench(site: Path, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ssl_bench.cli.main", *arguments],
        cwd=cwd or site,
        env={**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


def lines_of(output: str) -> dict[tuple[str, str], str]:
    """(name, package) -> its line."""
    rows = [line.split() for line in output.splitlines() if line.startswith("  ")]
    return {(row[0], row[1]): " ".join(row) for row in rows if len(row) > 1}


METADATA_TELLS = {
    ("dino", "thief-bench"): "BROKEN: the name is sslbench's own: uninstall thief-bench, or rename its entry point",
    ("ancient", "ancient-bench"): "BROKEN: it is registered for ssl_bench.methods.v0, and this sslbench reads "
    "ssl_bench.methods.v1; ask its author for a newer version",
    ("future", "future-bench"): "ssl_bench.methods.v1; update sslbench",
    ("singular", "singular-bench"): "BROKEN: it is registered for ssl_bench.method.v1, and this sslbench reads",
    ("missing", "missing-bench"): "BROKEN: the module outside_not_there is not installed",
    ("nameless", "missing-bench"): "BROKEN: its entry point names no class",
    ("typo", "typo-bench"): "line 1, is not Python",
}


def test_list_says_what_metadata_and_source_tell_and_imports_no_one(site: Path) -> None:
    done = sslbench(site, "list", "methods")
    assert (done.returncode, done.stderr) == (0, "")
    lines = lines_of(done.stdout)
    for key, words in METADATA_TELLS.items():
        assert words in lines[key]
    assert "arXiv 2104.14294" in lines["dino", "sslbench"]
    assert "BROKEN" not in lines["dino", "sslbench"]
    assert ("hangs", "hangs-bench") in lines
    assert "hello" not in done.stdout


def test_list_check_tries_each_third_party_plugin_in_its_own_process(site: Path) -> None:
    done = sslbench(site, "list", "methods", "--check", "--seconds", "3")
    assert done.returncode == 1
    lines = lines_of(done.stdout)
    for name, (_, words) in THIRD_PARTY.items():
        assert words in lines[name, f"{name}-bench"]
        assert ("BROKEN" in lines[name, f"{name}-bench"]) == bool(words)
    for name in ("dino", "byol", "mocov2", "swav", "simclr", "supervised", "random"):
        assert "BROKEN" not in lines[name, "sslbench"]
    assert "Good: does nothing wrong." in lines["prints", "prints-bench"]
    assert "hello" not in done.stdout
    assert "method dino of thief-bench 1.0" in done.stderr


def test_run_of_an_official_method_imports_no_third_party_plugin(site: Path, tmp_path: Path) -> None:
    write_image_folder(tmp_path / "tints")
    arguments = ("run", "dino", "--arch", "deit_ti16", "--data", "image-folder:tints", "--batch-size", "4", "--dry-run")
    done = sslbench(site, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'method = "dino"' in done.stdout
    assert (done.stderr, "hello" in done.stdout) == ("", False)


def test_a_folder_is_recognized_whatever_other_data_sets_do(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    for name, source in (("exits", "import sys; sys.exit(3)"), ("twin_a", ""), ("twin_b", "")):
        (site / f"outside_{name}.py").write_text(source)
        lay(site, name, f"[ssl_bench.datasets.v1]\n{name.partition('_')[0]} = outside_{name}:Data\n")
    write_image_folder(tmp_path / "tints")
    done = sslbench(
        site, "run", "dino", "--arch", "deit_ti16", "--data", "tints", "--batch-size", "4", "--dry-run", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert 'method = "dino"' in done.stdout


def test_what_a_third_party_plugin_prints_does_not_get_into_what_is_printed_for_machines(
    site: Path, tmp_path: Path
) -> None:
    done = sslbench(site, "run", "prints", "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "hello from outside" in done.stderr
    assert "hello from outside" not in done.stdout


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("exits", "the method 'exits' of exits-bench 1.0 cannot be loaded from outside_exits:Good: SystemExit: bye."),
        (
            "ancient",
            "the method 'ancient' of ancient-bench 1.0 cannot be used: it is registered for ssl_bench.methods.v0",
        ),
    ],
)
def test_run_of_a_broken_method_is_one_message(site: Path, tmp_path: Path, name: str, words: str) -> None:
    done = sslbench(site, "run", name, "--arch", "deit_ti16", cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("error:") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", IN_PROCESS)
def test_whatever_an_import_does_is_a_broken_plugin(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, words = IN_PROCESS[name]
    (tmp_path / f"outside_{name}.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(BrokenPlugin) as caught:
        Plugin("method", name, f"outside_{name}:Good", f"{name}-bench", "1.0").load(0.5)
    assert words in str(caught.value)


def test_a_hanging_import_is_ended_and_says_where_it_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outside_slow.py").write_text("import time\nx = 1\ntime.sleep(1000)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    slow = Plugin("method", "slow", "outside_slow:Good", "slow-bench", "1.0")
    with pytest.raises(BrokenPlugin, match=r"it hangs, it is not imported after 0.2 s at .*outside_slow.py, line 3"):
        slow.load(0.2)


def test_a_child_that_no_signal_reaches_is_ended_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outside_deaf.py").write_text(
        "import signal, time\nsignal.setitimer(signal.ITIMER_REAL, 0)\ntime.sleep(1000)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("ssl_bench.registry.own_process.GRACE_SECONDS", 0.5)
    deaf = Plugin("method", "deaf", "outside_deaf:Good", "deaf-bench", "1.0")
    begun = time.monotonic()
    assert why_broken(deaf, 6.0) == "outside_deaf:Good of deaf-bench 1.0 hangs: it is not imported after 6 s"
    assert time.monotonic() - begun < 60  # and not 1000


def test_ctrl_c_stays_ctrl_c() -> None:
    with pytest.raises(KeyboardInterrupt), foreign_code("it"):
        raise KeyboardInterrupt


def test_the_metadata_of_a_record_name_the_package_whose_name_it_is(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(site))
    registry.refresh()
    try:
        assert registry.find("method", "dino").distribution == "sslbench"
        assert registry.find("dataset", "shapes").distribution == "sslbench"
        assert json.loads(json.dumps(registry.names("method"))) == sorted(registry.names("method"))
        assert "ancient" not in registry.names("method")
    finally:
        registry.refresh()


@pytest.fixture
def shadowed(tmp_path: Path) -> tuple[Path, Path]:
    """(site, working directory): a healthy plugin, and modules in the working directory that must not be imported."""
    site, here = tmp_path / "site", tmp_path / "here"
    site.mkdir()
    here.mkdir()
    (site / "outside_good.py").write_text(GOOD)
    lay(site, "good", "[ssl_bench.methods.v1]\ngood = outside_good:Good\n")
    for name in ("outside_good", "torch", "numpy", "timm", "PIL"):
        (here / f"{name}.py").write_text(f"raise RuntimeError('the {name} of the working directory')\n")
    return site, here


@pytest.mark.parametrize("words", [["list", "methods", "--check"], ["check", "good"]])
def test_modules_in_the_working_directory_stand_for_none_of_ours(shadowed: tuple[Path, Path], words: list[str]) -> None:
    site, here = shadowed
    done = sslbench(site, *words, cwd=here)
    assert "of the working directory" not in done.stdout + done.stderr
    if words[0] == "list":
        assert done.returncode == 0, done.stdout + done.stderr
        assert "every plugin loads" in done.stdout


def test_a_file_is_checked_beside_a_torch_of_its_own_and_may_not_be_called_torch(shadowed: tuple[Path, Path]) -> None:
    site, here = shadowed
    (here / "my_good.py").write_text(GOOD)
    done = sslbench(site, "check", "my_good.py:Good", cwd=here)
    assert "method Good, not installed" in done.stdout, done.stderr
    done = sslbench(site, "check", "torch.py", cwd=here)
    assert done.returncode == 2
    assert "has the name of an installed module" in done.stderr
