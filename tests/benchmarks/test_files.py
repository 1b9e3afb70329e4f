"""Files that are there in full or not at all."""

import os
import stat

import pytest

from benchmarks.base.files import replacing


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640)])
def test_permissions_follow_the_umask(tmp_path, umask, mode):
    """As for any new file, whether or not there was one before."""
    before = os.umask(umask)
    try:
        for content in (b"first", b"second"):
            with replacing(tmp_path / "new" / "file") as file:
                file.write(content)
            assert stat.S_IMODE((tmp_path / "new" / "file").stat().st_mode) == mode
    finally:
        os.umask(before)
    assert [path.read_bytes() for path in (tmp_path / "new").iterdir()] == [b"second"]


def test_an_error_keeps_the_former_content(tmp_path):
    """Nothing half written is left behind."""
    path = tmp_path / "file"
    path.write_bytes(b"former")
    with pytest.raises(TypeError), replacing(path) as file:
        file.writelines([b"half", "not bytes"])
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"former"]
