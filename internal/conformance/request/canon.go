package request

import (
	"slices"
	"sort"
	"strings"
)

// canon writes canonical forms.
type canon struct {
	b         strings.Builder
	omit      *Node    // left out, with everything below it: the signature itself
	inclusive bool     // Canonical XML 1.0 instead of the exclusive form
	prefixes  []string // of InclusiveNamespaces; "#default" is ""
}

// canonical returns the exclusive canonical form without comments (Exclusive
// XML Canonicalization 1.0) of n without omit.
func canonical(n, omit *Node, prefixes ...string) string {
	c := &canon{omit: omit, prefixes: prefixes}
	c.element(n, map[string]string{})
	return c.b.String()
}

// canonicalInclusive is Canonical XML 1.0, which SPID does not use: a signature
// over it has to be refused.
func canonicalInclusive(n, omit *Node) string {
	c := &canon{omit: omit, inclusive: true}
	c.element(n, map[string]string{})
	return c.b.String()
}

// element writes n; rendered are the declarations in force in what was written.
func (c *canon) element(n *Node, rendered map[string]string) {
	c.b.WriteString("<" + qualified(n.prefix, n.Name))
	inner := map[string]string{}
	for k, v := range rendered {
		inner[k] = v
	}
	var declare []string
	for _, p := range c.wanted(n) {
		uri, ok := n.Scope(p)
		now, written := inner[p]
		if !ok || p == "xml" || now == uri && (written || uri == "") {
			continue
		}
		inner[p] = uri
		declare = append(declare, p)
	}
	sort.Strings(declare)
	for _, p := range declare {
		name := "xmlns"
		if p != "" {
			name += ":" + p
		}
		c.b.WriteString(" " + name + `="` + EscapeAttr(inner[p]) + `"`)
	}
	attrs := slices.Clone(n.Attrs)
	slices.SortFunc(attrs, func(a, b Attribute) int {
		if d := strings.Compare(a.Space, b.Space); d != 0 {
			return d
		}
		return strings.Compare(a.Name, b.Name)
	})
	for _, a := range attrs {
		c.b.WriteString(" " + qualified(a.prefix, a.Name) + `="` + EscapeAttr(a.Value) + `"`)
	}
	c.b.WriteString(">")
	for _, k := range n.kids {
		switch k := k.(type) {
		case string:
			c.b.WriteString(escapeText(k))
		case *Node:
			if k != c.omit {
				c.element(k, inner)
			}
		}
	}
	c.b.WriteString("</" + qualified(n.prefix, n.Name) + ">")
}

// wanted lists the prefixes whose declaration has to be in force at n.
func (c *canon) wanted(n *Node) []string {
	if c.inclusive {
		all := map[string]string{}
		for at := n; at != nil; at = at.parent {
			for p := range at.decls {
				all[p] = ""
			}
		}
		return keys(all)
	}
	want := map[string]string{n.prefix: ""}
	for _, a := range n.Attrs {
		if a.prefix != "" {
			want[a.prefix] = ""
		}
	}
	for _, p := range c.prefixes {
		if p == "#default" {
			p = ""
		}
		if uri, ok := n.Scope(p); ok && uri != "" {
			want[p] = ""
		}
	}
	return keys(want)
}

func keys(m map[string]string) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	return out
}

func qualified(prefix, name string) string {
	if prefix == "" {
		return name
	}
	return prefix + ":" + name
}

// escapeText and EscapeAttr follow Canonical XML 1.0, 2.3.
func escapeText(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "\r", "&#xD;").Replace(s)
}

func EscapeAttr(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", `"`, "&quot;", "\t", "&#x9;", "\n", "&#xA;", "\r", "&#xD;").Replace(s)
}
