"""Pictures of parts drawn from their contours, with known pose and known defects. Pure drawing: no file, no clock, no thread.

Words
  part      what lies on the belt: a template (or contours alone, in mm, y up)
  look      the ranges from which each picture draws its light, surface, optics, noise and defects (`look.Look`)
  surface   scratch 1, dent 2, stain 3, pit 4, crack 5: their pixels stand in `Drawn.mask` with these numbers
  outline   burr, notch, extra_material, and holes that are missing, extra, small, large or moved: made by editing contours; in
            `Drawn.defects`, never in the mask

Training pictures. `draw(...)` gives the camera's picture, `on_raster(drawn, template)` picture and mask on the template's raster: what a
check is given of a part that was found, hence what a network is trained on. `inspector synth --raster` writes these as a plain
segmentation data set: `raster/images/NNNNNN.png` (8-bit grey) and `raster/masks/NNNNNN.png` (classes as above) of the same name.
"""

from inspector.scene.defects import Defect
from inspector.scene.look import GEOMETRIC, SURFACE, DefectKind, Look
from inspector.scene.picture import Drawn, draw, fitting_mm_per_px, on_raster, place, truth_of

__all__ = ["GEOMETRIC", "SURFACE", "Defect", "DefectKind", "Drawn", "Look", "draw", "fitting_mm_per_px", "on_raster", "place", "truth_of"]
