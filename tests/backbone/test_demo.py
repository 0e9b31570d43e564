from peftsearch.backbone.demo import demo_backbone
from peftsearch.backbone.outline import read_outline
from peftsearch.options import ModelOptions


def test_the_anatomy_in_the_file_is_that_of_the_model():
    assert demo_backbone() == read_outline(ModelOptions()).backbone
