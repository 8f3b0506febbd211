"Checkpoints that were tuned for something else, and those whose files disagree."
import json
import pytest
import ftkit as ft

pytestmark = pytest.mark.fast


@pytest.fixture
def folder(tmp_path):
    ck = ft.load("bert-mini", task="text-classification", num_labels=2, seed=0)
    ck.model.save_pretrained(tmp_path)
    ck.processor.save_pretrained(tmp_path)
    return tmp_path


def test_a_head_of_another_size_is_replaced(folder):
    other = ft.load(folder, task="text-classification", num_labels=3)
    assert other.model.classifier.out_features == 3 and set(other.new) == {"classifier.weight", "classifier.bias"}


def test_weights_that_do_not_fit_their_configuration(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": config["intermediate_size"] * 2}))
    with pytest.raises(ft.FtError, match="do not fit their own configuration"): ft.load(folder, task="text-classification", num_labels=2)
