package enrol

import (
	"image"
	"image/color"
)

// bordered is a picture with the quiet zone around it.
type bordered struct{ inner image.Image }

// ColorModel implements image.Image.
func (b bordered) ColorModel() color.Model { return color.GrayModel }

// Bounds implements image.Image.
func (b bordered) Bounds() image.Rectangle {
	return b.inner.Bounds().Inset(-quiet * modulePixels)
}

// At implements image.Image.
func (b bordered) At(x, y int) color.Color {
	if !(image.Point{X: x, Y: y}).In(b.inner.Bounds()) {
		return color.Gray{Y: 255}
	}
	return color.GrayModel.Convert(b.inner.At(x, y))
}
