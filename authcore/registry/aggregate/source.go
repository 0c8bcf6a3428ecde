package aggregate

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// maxToken bounds one tag or comment, octets.
const maxToken = 1 << 20

// source is a window on the input.
type source struct {
	r        io.Reader
	buf      []byte
	pos, end int
	read     int64 // octets taken from r
	limit    int64
}

// rest is what the window holds.
func (s *source) rest() []byte { return s.buf[s.pos:s.end] }

// more widens the window. It returns io.EOF when there is nothing more.
func (s *source) more() error {
	if s.end == len(s.buf) {
		if s.pos > 0 {
			copy(s.buf, s.buf[s.pos:s.end])
			s.end -= s.pos
			s.pos = 0
		} else if len(s.buf) < maxToken {
			s.buf = append(s.buf, make([]byte, max(len(s.buf), 64<<10))...)
		} else {
			return fmt.Errorf("markup longer than %d octets", maxToken)
		}
	}
	n, err := 0, error(nil)
	for tries := 0; n == 0 && err == nil; tries++ {
		if tries == 100 {
			return io.ErrNoProgress
		}
		n, err = s.r.Read(s.buf[s.end:])
	}
	s.end += n
	if s.read += int64(n); s.read > s.limit {
		return fmt.Errorf("document larger than %d octets", s.limit)
	}
	if n > 0 {
		return nil
	}
	return err
}

// has reports whether the input goes on with prefix.
func (s *source) has(prefix string) (bool, error) {
	for s.end-s.pos < len(prefix) {
		if !bytes.HasPrefix([]byte(prefix), s.rest()) {
			return false, nil
		}
		if err := s.more(); err == io.EOF {
			return false, nil
		} else if err != nil {
			return false, err
		}
	}
	return bytes.HasPrefix(s.rest(), []byte(prefix)), nil
}

// tag returns the tag at the window's start, from '<' to '>'; the slice is good
// until the next call. In a document without CDATA a '>' outside quotes ends it.
func (s *source) tag() ([]byte, error) {
	var quote byte
	for i := 1; ; {
		for rest := s.rest(); i < len(rest); i++ {
			switch c := rest[i]; {
			case c == '<':
				return nil, errors.New("tag inside a tag")
			case quote != 0:
				// Most of a tag is attribute values.
				n := bytes.IndexByte(rest[i:], quote)
				if n < 0 {
					n = len(rest) - i
				}
				if bytes.IndexByte(rest[i:i+n], '<') >= 0 {
					return nil, errors.New("tag inside a tag")
				}
				if i += n; i < len(rest) {
					quote = 0
				} else {
					i--
				}
			case c == '"' || c == '\'':
				quote = c
			case c == '>':
				t := rest[:i+1]
				s.pos += i + 1
				return t, nil
			}
		}
		if err := s.more(); err != nil {
			return nil, unfinished(err, "tag")
		}
	}
}

// comment passes over the comment at the window's start.
func (s *source) comment() error {
	for i := 4; ; {
		rest := s.rest()
		if n := bytes.Index(rest[min(i, len(rest)):], []byte("--")); n >= 0 && i+n+2 < len(rest) {
			if rest[i+n+2] != '>' {
				return errors.New("two hyphens in a comment")
			}
			s.pos += i + n + 3
			return nil
		} else if n < 0 {
			i = max(4, len(rest)-1)
		}
		if err := s.more(); err != nil {
			return unfinished(err, "comment")
		}
	}
}

func unfinished(err error, what string) error {
	if err == io.EOF {
		return fmt.Errorf("document ends inside a %s", what)
	}
	return err
}
