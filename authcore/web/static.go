package web

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"net/http"
	"path"
	"strings"

	"custode/internal/fault"
)

//go:embed static
var staticFiles embed.FS

// asset is a file under /static/, named after its content so that browsers may
// keep it for good.
type asset struct {
	name        string // "style.css"
	contentType string
	body        []byte
}

// loadAssets reads the embedded files; the keys are the names in URLs,
// "style-0123456789ab.css".
func loadAssets() (map[string]asset, error) {
	entries, err := staticFiles.ReadDir("static")
	if err != nil {
		return nil, fault.New(fault.Internal, "read embedded files", err)
	}
	all := map[string]asset{}
	for _, e := range entries {
		body, err := staticFiles.ReadFile("static/" + e.Name())
		if err != nil {
			return nil, fault.New(fault.Internal, "read embedded file "+e.Name(), err)
		}
		ext := path.Ext(e.Name())
		contentType := map[string]string{".css": "text/css; charset=utf-8", ".svg": "image/svg+xml", ".js": "text/javascript; charset=utf-8"}[ext]
		if contentType == "" {
			return nil, fault.Newf(fault.Internal, "read embedded file "+e.Name(), "no content type for %q", ext)
		}
		sum := sha256.Sum256(body)
		key := strings.TrimSuffix(e.Name(), ext) + "-" + hex.EncodeToString(sum[:6]) + ext
		all[key] = asset{name: e.Name(), contentType: contentType, body: body}
	}
	return all, nil
}

func (s *Server) static(r request, name string) answer {
	a, ok := s.assets[name]
	switch {
	case !ok:
		return s.message(r, http.StatusNotFound, "notfound")
	case !r.isGet():
		return s.wrongMethod(r, "GET, HEAD")
	}
	return answer{status: http.StatusOK, contentType: a.contentType, body: a.body, cache: "public, max-age=31536000, immutable"}
}
