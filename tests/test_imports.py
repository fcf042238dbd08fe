"""What must stay light: nothing of torch before a method is loaded."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "code",
    [
        "import bench",
        "from bench.cli import list_methods; list_methods()",
        "from bench.cli import list_nets; list_nets()",
        "from bench.cli import list_presets; list_presets()",
        "from bench.cli import list_datasets; list_datasets()",
    ],
)
def test_torch_is_not_imported(code: str) -> None:
    check = f"import sys; {code}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True).returncode == 0


def test_the_public_names_are_there_and_no_others() -> None:
    import bench

    assert all(getattr(bench, name) is not None for name in bench.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = bench.Nothing
