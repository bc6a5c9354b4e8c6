"""The first page shows a picture and a question of each chapter that is written."""

import base64
from pathlib import Path

import nbformat
import pytest
from gallery import gallery, pictures, still_name
from nbformat.v4 import new_code_cell, new_notebook, new_output
from outline import Chapter


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A chapter that has run, with two figures, of which the second stands for it."""
    cells = [new_code_cell("plt.show()"), new_code_cell("plt.show()", metadata={"tags": ["still"]})]
    for cell, picture in zip(cells, (b"first", b"second")):
        shown = new_output("display_data", {"image/png": base64.b64encode(picture).decode()})
        cell.outputs = [new_output("stream", text="loss 1"), shown]
        cell.metadata["mystnb"] = {"image": {"alt": f"The {picture.decode()} <picture>."}}
    nb = new_notebook(cells=cells)
    nb.metadata["cnflib"] = {"question": "Is p > q?"}
    nbformat.write(nb, tmp_path / "07-limits.ipynb")
    return tmp_path / "07-limits.ipynb"


def test_a_chapter_has_a_picture_its_title_and_its_question(path):
    page = gallery({"I": [Chapter("7", "What flows cannot do", path), Chapter("8", "Later")]})
    assert page.count("<figure>") == 1 and "Later" not in page
    assert f'src="../_static/{still_name(path)}" alt="The second &lt;picture&gt;."' in page
    assert '<a href="../chapters/07-limits.html">7. What flows cannot do</a><br>Is p &gt; q?' in page


def test_the_picture_is_that_of_the_tagged_cell(path):
    assert list(pictures(nbformat.read(path, as_version=4))) == [b"second"]
