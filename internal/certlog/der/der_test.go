package der

import (
	"bytes"
	"testing"
)

func TestCheck(t *testing.T) {
	for name, c := range map[string]struct {
		b    []byte
		good bool
	}{
		"empty":             {nil, false},
		"integer":           {[]byte{2, 1, 5}, true},
		"sequence":          {[]byte{0x30, 3, 2, 1, 5}, true},
		"cut":               {[]byte{0x30, 4, 2, 1, 5}, false},
		"followed":          {[]byte{2, 1, 5, 0}, false},
		"cut inside":        {[]byte{0x30, 3, 2, 2, 5}, false},
		"indefinite length": {[]byte{0x30, 0x80, 2, 1, 5, 0, 0}, false},
		"long length":       {[]byte{0x30, 0x81, 3, 2, 1, 5}, false},
		"deep":              {bytes.Repeat([]byte{0x30, 0x80}, 1000), false},
	} {
		if err := Check(c.b); (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
	}
	deep := []byte{2, 1, 5}
	for range maxDepth + 2 {
		deep = append([]byte{0x30, byte(len(deep))}, deep...)
		if len(deep) > 120 {
			break
		}
	}
	if err := Check(deep); err == nil {
		t.Error("nested beyond the bound")
	}
}
