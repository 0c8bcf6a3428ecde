package aggregate

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"custode/authcore/saml/xmldoc"
)

// walker reads one document and appends its canonical form to out.
type walker struct {
	src   source
	names names
	open  []element
	scope []binding // declarations in scope, innermost last
	shown []binding // declarations in the canonical form of the open elements
	apex  int       // shown from here on counts: the apex of a subset has no ancestors

	inclusive []string // InclusiveNamespaces PrefixList
	tag       startTag
	out       []byte

	// The hooks see the document go by; depth is the number of open ancestors.
	before func(depth int, t *startTag) error // nothing of the tag is in out yet
	after  func(depth int) error              // the end tag is in out
	spill  func() error                       // out has grown
}

type element struct {
	*name
	scope, shown int // lengths before it
}

// spillAt is the size of out at which spill is called.
const spillAt = 64 << 10

func newWalker(r io.Reader, limit int64) *walker {
	return &walker{
		src:    source{r: r, buf: make([]byte, 256<<10), limit: limit},
		names:  names{known: map[string]*name{}, spaces: map[string]string{}},
		out:    make([]byte, 0, 2*spillAt),
		before: func(int, *startTag) error { return nil },
		after:  func(int) error { return nil },
		spill:  func() error { return nil },
	}
}

// walk goes through the document. A hook's error ends it and is returned.
func (w *walker) walk() error {
	for len(w.src.rest()) < 512 {
		if err := w.src.more(); err == io.EOF {
			break
		} else if err != nil {
			return err
		}
	}
	w.src.pos += xmldoc.Prolog(w.src.rest())
	seen := false
	for {
		if len(w.src.rest()) == 0 {
			err := w.src.more()
			if err == io.EOF && seen && len(w.open) == 0 {
				return nil
			}
			if err != nil {
				return unfinished(err, "document")
			}
		}
		if w.src.rest()[0] != '<' {
			if err := w.text(); err != nil {
				return err
			}
			continue
		}
		if err := w.markup(seen); err != nil {
			return err
		}
		seen = seen || len(w.open) > 0 || w.tag.name != nil
		if len(w.out) >= spillAt {
			if err := w.spill(); err != nil {
				return err
			}
		}
	}
}

func (w *walker) text() error {
	for {
		rest := w.src.rest()
		n := bytes.IndexByte(rest, '<')
		last := n >= 0
		if !last {
			n = len(rest)
		}
		if len(w.open) == 0 {
			if len(bytes.Trim(rest[:n], blank)) > 0 {
				return errors.New("text outside the root element")
			}
			w.src.pos += n
			return nil
		}
		out, taken, err := appendText(w.out, rest[:n], last)
		if err != nil {
			return err
		}
		w.out = out
		w.src.pos += taken
		if len(w.out) >= spillAt {
			if err := w.spill(); err != nil {
				return err
			}
		}
		if taken > 0 {
			return nil
		}
		// The window ends inside a character.
		if err := w.src.more(); err != nil {
			return unfinished(err, "text")
		}
	}
}

func (w *walker) markup(seen bool) error {
	for len(w.src.rest()) < 2 {
		if err := w.src.more(); err != nil {
			return unfinished(err, "tag")
		}
	}
	switch w.src.rest()[1] {
	case '!':
		comment, err := w.src.has("<!--")
		if err != nil {
			return err
		}
		if !comment {
			return errors.New("DOCTYPE or CDATA")
		}
		return w.src.comment()
	case '?':
		return errors.New("processing instruction")
	case '/':
		raw, err := w.src.tag()
		if err != nil {
			return err
		}
		if len(w.open) == 0 || string(bytes.TrimRight(raw[2:len(raw)-1], blank)) != w.open[len(w.open)-1].text {
			return errors.New("end tag without its start")
		}
		return w.end()
	}
	if seen && len(w.open) == 0 {
		return errors.New("second root element")
	}
	raw, err := w.src.tag()
	if err != nil {
		return err
	}
	return w.start(raw)
}

func (w *walker) start(raw []byte) error {
	if len(w.open) == maxDepth {
		return fmt.Errorf("elements nested deeper than %d", maxDepth)
	}
	el := element{scope: len(w.scope), shown: len(w.shown)}
	if err := w.parseTag(raw); err != nil {
		return err
	}
	if err := w.resolve(); err != nil {
		return err
	}
	if err := w.before(len(w.open), &w.tag); err != nil {
		return err
	}
	if err := w.appendTag(); err != nil {
		return err
	}
	el.name = w.tag.name
	w.open = append(w.open, el)
	if w.tag.empty {
		return w.end()
	}
	return nil
}

func (w *walker) end() error {
	el := w.open[len(w.open)-1]
	w.open = w.open[:len(w.open)-1]
	w.scope, w.shown = w.scope[:el.scope], w.shown[:el.shown]
	w.out = append(append(append(w.out, '<', '/'), el.text...), '>')
	return w.after(len(w.open))
}
