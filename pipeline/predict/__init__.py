"""`das predict`: detects people on photos and videos and writes their poses and overlays.

predict holds the command; camera_file reads a camera's calibration, results writes a photo's files, videos reads and
writes videos, explain draws a model's inner maps (`--inside`).
"""
