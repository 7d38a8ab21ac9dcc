"""Scans of all formats, written byte by byte, and DICOM series."""

import gzip
import zlib

import nibabel as nib
import numpy as np

VOXELS = np.random.default_rng(0).integers(0, 1000, (12, 11, 10)).astype(np.int16)


def mgh(voxels=VOXELS, affine=None):
    return nib.MGHImage(voxels, np.eye(4) if affine is None else affine).to_bytes()


def mgz(voxels=VOXELS, affine=None):
    return gzip.compress(mgh(voxels, affine), mtime=0)


def _words(numbers):
    return " ".join(repr(float(x)) for x in numbers)


def nrrd(voxels=VOXELS, affine=None, encoding="gzip", space="left-posterior-superior", **fields):
    """A file whose affine is that of RAS mm, written in its own space."""
    signs = {"left-posterior-superior": (-1, -1, 1), "LAS": (-1, 1, 1)}.get(space, (1, 1, 1))
    affine = np.diag([*signs, 1.0]) @ (np.eye(4) if affine is None else affine)
    header = {"type": "short", "dimension": 3, "space": space, "sizes": " ".join(map(str, voxels.shape))}
    header["space directions"] = " ".join(f"({','.join(map(repr, map(float, affine[:3, i])))})" for i in range(3))
    header |= {"endian": "little", "encoding": encoding}
    header["space origin"] = f"({','.join(map(repr, map(float, affine[:3, 3])))})"
    header |= {key.replace("_", " "): value for key, value in fields.items()}
    text = "".join(f"{key}: {value}\n" for key, value in header.items() if value is not None)
    data = voxels.astype("<i2").tobytes(order="F")
    return f"NRRD0004\n# a comment\n{text}\n".encode() + (gzip.compress(data, mtime=0) if encoding == "gzip" else data)


def mha(voxels=VOXELS, affine=None, compressed=True, **fields):
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ (np.eye(4) if affine is None else affine)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    data = voxels.astype("<i2").tobytes(order="F")
    packed = zlib.compress(data) if compressed else data
    header = {"ObjectType": "Image", "NDims": 3, "BinaryData": True, "BinaryDataByteOrderMSB": False}
    header |= {"CompressedData": compressed, "CompressedDataSize": len(packed) if compressed else None}
    header |= {"TransformMatrix": _words((affine[:3, :3] / spacing).T.ravel()), "Offset": _words(affine[:3, 3])}
    header |= {"ElementSpacing": _words(spacing), "DimSize": " ".join(map(str, voxels.shape))}
    header |= {"ElementType": "MET_SHORT", **fields, "ElementDataFile": fields.get("ElementDataFile", "LOCAL")}
    return "".join(f"{k} = {v}\n" for k, v in header.items() if v is not None).encode() + packed


def write_series(folder, voxels, affine, order=None, **tags):
    """Writes a scan as a DICOM series: rows along the second axis of the volume, columns along the first.

    Args:
        folder: folder of the files.
        voxels: integers of shape (columns, rows, slices).
        affine: from voxels to RAS mm.
        order: order of the slices in names and instance numbers.
        tags: of every file; None leaves a tag out.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

    folder.mkdir(parents=True, exist_ok=True)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # DICOM's axes are LPS
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    common = {
        "PatientName": "A^B", "PatientID": "1", "PatientBirthDate": "", "PatientSex": "O", "StudyID": "1",
        "StudyDate": "20200101", "StudyTime": "120000", "AccessionNumber": "", "ReferringPhysicianName": "",
        "StudyInstanceUID": generate_uid(entropy_srcs=["study"]), "SeriesInstanceUID": generate_uid(),
        "FrameOfReferenceUID": generate_uid(entropy_srcs=["frame"]), "Modality": "MR", "SeriesNumber": 3,
        "SeriesDescription": "t1_mprage_sag", "ImageType": ["ORIGINAL", "PRIMARY", "M"], "Manufacturer": "None",
        "PositionReferenceIndicator": "", "SliceThickness": f"{spacing[2]:.10g}",
        "ImageOrientationPatient": [f"{x:.10g}" for x in (affine[:3, :2] / spacing[:2]).T.ravel()],
        "PixelSpacing": [f"{spacing[1]:.10g}", f"{spacing[0]:.10g}"],
        "Rows": voxels.shape[1], "Columns": voxels.shape[0], "SamplesPerPixel": 1, "BitsAllocated": 16,
        "PhotometricInterpretation": "MONOCHROME2", "BitsStored": 16, "HighBit": 15, "PixelRepresentation": 0,
        **tags,
    }  # fmt: skip
    order = list(range(voxels.shape[2])) if order is None else order
    for number, index in enumerate(order, start=1):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = MRImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        header = Dataset()
        header.file_meta = meta
        header.SOPClassUID, header.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
        for name, value in common.items():
            if value is not None:
                setattr(header, name, value)
        if "InstanceNumber" not in tags:
            header.InstanceNumber = number
        if "ImagePositionPatient" not in tags:
            header.ImagePositionPatient = [f"{x:.10g}" for x in (affine @ [0, 0, index, 1])[:3]]
        header.PixelData = voxels[:, :, index].T.astype("<u2").tobytes()
        header.save_as(folder / f"IM{number:04d}.dcm", enforce_file_format=True)
    return folder
