"""Imported before Ultralytics, which reads its environment: nothing is downloaded, installed or reported, and no settings of the
user's are read or written."""

import os
import tempfile

FOLDER = tempfile.TemporaryDirectory(prefix="ultralytics-")  # removed when the process ends
os.environ |= {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_CONFIG_DIR": FOLDER.name}
