"""Writes DICOM folders as a clinic exports them, from the heads of WholeHead: the example of docs/clinic.md.

    pip install pydicom
    python docs/experiment/scripts/clinic_series.py ../shared/data/WholeHead export

Each person has a real T1w scan and a real T2w stack of 1.56×1.56×5 mm, both with skull. They stand in for the four
modalities: the T2w also for FLAIR, the T1w also for T1Gd, as axial slices of 5 mm. A localizer and a diffusion series
(the T2w again) are there to be left out. The T1w of the first person is written as it is, that of the others as axial
slices of 5 mm. Nobody here has a tumour.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from monai.data import MetaTensor
from monai.data.utils import orientation_ras_lps
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from skull_stripping import read, thick

PERSONS = ("sub-01", "sub-02", "sub-03")


def write_series(folder: Path, scan: MetaTensor, number: int, description: str, common: dict, **tags) -> None:
    """Writes a file for each slice of the last axis of a scan, shape (1, D, H, W)."""
    folder.mkdir(parents=True)
    affine = orientation_ras_lps(np.asarray(scan.affine, dtype=np.float64))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    voxels = np.asarray(scan.as_tensor()[0])
    voxels = np.round(voxels * (4095 / voxels.max())).clip(0, 4095).astype("<u2")
    of_series = {
        **common,
        **tags,
        "SeriesInstanceUID": generate_uid(),
        "Modality": "MR",
        "SeriesNumber": number,
        "SeriesDescription": description,
        "ImageType": ["ORIGINAL", "PRIMARY", "M"],
        "SliceThickness": f"{spacing[2]:.8g}",
        "ImageOrientationPatient": [f"{x:.8g}" for x in (affine[:3, :2] / spacing[:2]).T.ravel()],
        "PixelSpacing": [f"{spacing[1]:.8g}", f"{spacing[0]:.8g}"],
        "Rows": voxels.shape[1],
        "Columns": voxels.shape[0],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
    }
    for index in range(voxels.shape[2]):
        header = Dataset()
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = MRImageStorage
        header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = generate_uid()
        for name, value in of_series.items():
            setattr(header, name, value)
        header.InstanceNumber = index + 1
        header.ImagePositionPatient = [f"{x:.8g}" for x in (affine @ [0, 0, index, 1])[:3]]
        header.PixelData = voxels[:, :, index].T.tobytes()
        header.save_as(folder / f"IM{index + 1:04d}", enforce_file_format=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset_dir", type=Path)
    parser.add_argument("output_dir", type=Path)
    args = parser.parse_args()
    for number, person in enumerate(PERSONS):
        t1w, t2w = (read(args.dataset_dir / "images" / f"ds000011_{person}{end}.nii.gz") for end in ("", "_T2w"))
        slices = thick(t1w)
        common = {"PatientName": person, "PatientID": person, "StudyInstanceUID": generate_uid()}
        common |= {"FrameOfReferenceUID": generate_uid(), "StudyDate": "20200101"}
        for series, (scan, description, tags) in enumerate(
            (
                (t2w[..., ::3], "localizer", {}),
                (t1w if number == 0 else slices, "t1_mprage_sag" if number == 0 else "t1_se_tra", {}),
                (t2w, "t2_tse_tra_5mm", {}),
                (t2w, "t2_flair_tra_5mm", {}),
                (t2w, "ep2d_diff_b1000", {}),
                (slices, "t1_se_tra_km", {"ContrastBolusAgent": "stand-in"}),
            ),
            start=1,
        ):
            folder = args.output_dir / person / f"{series:02d}_{description}"
            write_series(folder, scan, series, description, common, **tags)
        print(args.output_dir / person)


if __name__ == "__main__":
    main()
