import io

from PIL import Image, ImageDraw, ImageFilter, ImageOps

picture = Image.new("RGB", (300, 200), "navy")
ImageDraw.Draw(picture).ellipse((20, 20, 200, 150), fill="white")
picture = ImageOps.grayscale(picture.filter(ImageFilter.GaussianBlur(3)).rotate(20).resize((100, 80)))
for kind in ("PNG", "JPEG", "GIF", "TIFF", "BMP"):
    kept = io.BytesIO()
    picture.save(kept, kind)
    with Image.open(io.BytesIO(kept.getvalue())) as again:
        again.load()
        assert again.size == (100, 80)
