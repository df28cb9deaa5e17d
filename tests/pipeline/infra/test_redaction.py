"""Keys and passwords do not stay in texts; other texts are unchanged."""

import pytest

from pipeline.infra.redaction import redacted, redacted_values


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("s3://AKIA:SECRET@bucket/runs?region=eu", "s3://***@bucket/runs?region=eu"),
        ("s3://AKIA:se/cr+et/@bucket/runs", "s3://***@bucket/runs"),
        ("s3://bucket/x?access_key=AKIA&secret_key=a/b&region=eu", "s3://bucket/x?access_key=***&secret_key=***&region=eu"),
        ("postgresql://user:password@host:5432/db", "postgresql://***@host:5432/db"),
        ("postgresql+psycopg2://u:p@ss@host/db?sslpassword=x", "postgresql+psycopg2://***@host/db?sslpassword=***"),
        ("https://token@host/x", "https://***@host/x"),
        ("https://b.example/x?X-Amz-Credential=A%2F&X-Amz-Signature=b", "https://b.example/x?X-Amz-Credential=***&X-Amz-Signature=***"),
        ("'s3://K:S@b/x' and 's3://c?session_token=1'", "'s3://***@b/x' and 's3://c?session_token=***'"),
        ("cannot connect: host='h' password='p w'", "cannot connect: host='h' password=***"),
    ],
)  # fmt: skip
def test_secrets_of_addresses_are_hidden(text, wanted):
    assert redacted(text) == wanted
    assert redacted(wanted) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "http://head:5000",
        "http://head:5000/runs@v1",
        "s3://bucket/runs?region=eu&endpoint_override=localhost:9000",
        "sqlite:////home/a@b/mlflow.db",
        "models:/das-demo@champion",
        "/home/a:b/c@d",
        "keyframe = 3, wanted 4; see mail@example.org",
        "",
    ],
)
def test_other_texts_are_unchanged(text):
    assert redacted(text) == text


def test_a_tree_of_values_is_redacted_wherever_a_text_is():
    value = {"a": ["s3://K:S@b", 1, None], "s3://K:S@b": ({"c": "x"}, True)}
    assert redacted_values(value) == {"a": ["s3://***@b", 1, None], "s3://***@b": [{"c": "x"}, True]}
