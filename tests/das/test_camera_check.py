import numpy as np
import pytest

from das.camera import transform_intrinsics
from das.camera_check import check_intrinsics, intrinsics_fault, outside_remark

K = np.array([[900.0, 0, 320], [0, 910, 180], [0, 0, 1]])
SIZE = (360, 640)


def test_the_camera_of_an_image_passes_upright_and_turned():
    assert intrinsics_fault(K, SIZE) is None and intrinsics_fault(K) is None
    turned = transform_intrinsics(np.array([[0.0, -1, 359], [1, 0, 0]]), K)
    assert intrinsics_fault(turned, (640, 360)) is None


@pytest.mark.parametrize(
    ("matrix", "reason"),
    [
        (K.T, r"last row 320 180 1 \(this is the transpose, as MATLAB writes it\), wanted 0 0 1"),
        (K * 2, "last row 0 0 2, wanted 0 0 1"),
        (np.diag([0.0, 0, 1]), "focal lengths 0 and 0, wanted both above 0"),
        (np.diag([-900.0, 900, 1]), "focal lengths -900 and 900, wanted both above 0"),
        (np.diag([1.4, 1.4, 1]), "focal lengths 1.4 and 1.4, wanted 32 to 64000 px for an image 640 px long"),
        (np.diag([9e4, 9e4, 1]), "focal lengths 90000 and 90000, wanted 32 to 64000"),
        (np.full((3, 3), np.nan), "NaN or infinity"),
        (np.eye(4), r"shape \(4, 4\), wanted 3 x 3"),
    ],
)
def test_what_is_no_camera_is_refused_by_name(matrix, reason):
    with pytest.raises(ValueError, match=f"photo.json: K has {reason}"):
        check_intrinsics(matrix, SIZE, "photo.json")


def test_a_principal_point_outside_the_image_is_remarked():
    assert outside_remark(K, SIZE) == ""
    assert "(320, 180) is outside the image of 300x360 pixels" in outside_remark(K, (360, 300))
