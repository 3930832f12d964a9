from report.examples import rows_of

from sie_jax.report.sections import settings


def test_nested_settings_have_dotted_names():
    part = settings.part({"seed": 3, "train": {"batch_size": 16, "extra": {}}})
    assert rows_of(part) == [["seed", "3"], ["train.batch_size", "16"], ["train.extra", "{}"]]
