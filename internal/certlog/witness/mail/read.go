package mail

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"io"
	"io/fs"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"os"
	"path/filepath"
	"strings"

	"custode/internal/fault"
)

// Limits of what Read reads.
const (
	maxLetter = 1 << 20 // octets; a longer one is none of ours
	maxSeal   = 128 << 10
	maxDepth  = 4 // of parts in parts
)

// Read returns the attachments of every letter saved at path: one letter (.eml), a
// mailbox file (mbox), or a folder of both, with its subfolders. Letters and parts
// that are not ours in form are passed over: what counts is said by the seals, and
// whoever can write to the box can put anything into it.
func Read(path string) ([][]byte, error) {
	op := "read letters of " + path
	var out [][]byte
	err := filepath.WalkDir(path, func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		return letters(f, func(letter []byte) { out = append(out, attachments(letter)...) })
	})
	if err != nil {
		return nil, fault.New(fault.Unavailable, op, err)
	}
	return out, nil
}

// letters cuts an mbox at its "From " lines; a file without any is one letter.
func letters(in io.Reader, visit func([]byte)) error {
	r := bufio.NewReaderSize(in, 64<<10)
	var letter []byte
	long, blank := false, true
	for {
		line, err := r.ReadSlice('\n')
		if err == bufio.ErrBufferFull {
			long, err = true, nil // no line of ours
		}
		if blank && bytes.HasPrefix(line, []byte("From ")) {
			if len(letter) > 0 && !long {
				visit(letter)
			}
			letter, long = nil, false
			line = nil
		}
		if len(letter)+len(line) > maxLetter {
			long = true
		}
		if !long {
			letter = append(letter, line...)
		}
		blank = len(bytes.TrimRight(line, "\r\n")) == 0
		if err == io.EOF {
			if len(letter) > 0 && !long {
				visit(letter)
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// attachments returns what a letter carries that may be a seal.
func attachments(letter []byte) [][]byte {
	m, err := mail.ReadMessage(bytes.NewReader(letter))
	if err != nil {
		return nil
	}
	return parts(header(m.Header), m.Body, 0)
}

type header map[string][]string

func (h header) get(key string) string { return mail.Header(h).Get(key) }

func parts(h header, body io.Reader, depth int) [][]byte {
	kind, params, err := mime.ParseMediaType(h.get("Content-Type"))
	if err != nil || depth > maxDepth {
		return nil
	}
	if strings.HasPrefix(kind, "multipart/") {
		var out [][]byte
		r := multipart.NewReader(body, params["boundary"])
		for {
			p, err := r.NextRawPart()
			if err != nil {
				return out
			}
			out = append(out, parts(header(p.Header), p, depth+1)...)
		}
	}
	_, disposition, err := mime.ParseMediaType(h.get("Content-Disposition"))
	if err != nil || kind == "message/rfc822" {
		disposition = nil
	}
	switch {
	case kind == "message/rfc822": // forwarded
		m, err := mail.ReadMessage(body)
		if err != nil {
			return nil
		}
		return parts(header(m.Header), m.Body, depth+1)
	case kind != "application/pkcs7-mime" && kind != "application/x-pkcs7-mime" && !strings.HasSuffix(disposition["filename"], ".p7m"):
		return nil
	}
	switch strings.ToLower(h.get("Content-Transfer-Encoding")) {
	case "base64":
		body = base64.NewDecoder(base64.StdEncoding, body)
	case "quoted-printable":
		body = quotedprintable.NewReader(body)
	}
	octets, err := io.ReadAll(io.LimitReader(body, maxSeal+1))
	if err != nil || len(octets) > maxSeal {
		return nil
	}
	return [][]byte{octets}
}
