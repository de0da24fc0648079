"""Painting a CT image on a label map inside the compiled step, after SynthSeg.

Billot et al. 2023, Medical Image Analysis 86:102789: a network that sees a new image in every step,
painted on real anatomy, meets a real scan as one variation more. Here most tissues get a density
around what they have on CT, and a share of them any density of the window.

`options` holds the ranges of all draws. `materials` lists what a voxel may consist of, and
`material_map` finds that for a whole label map, once, on the host, with `visceral_fat`. The rest
runs in the step and depends on a patch's key alone: `anatomy` draws what no map names, bowel,
vessels and lesions, `densities` the mean of each material, `texture` smooth random fields, `fat`
the fat in the pancreas, `wall` rims of bones and fat in muscles, `resolution` the operators of blur
and slices, `tone` gamma and contrast, and `patch` paints an image with them. It knows neither files
nor networks.
"""
