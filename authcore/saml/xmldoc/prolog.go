package xmldoc

import "bytes"

// Prolog returns the length of the byte order mark and the XML declaration of
// UTF-8 that head begins with, 0 for neither.
func Prolog(head []byte) int {
	rest := bytes.TrimPrefix(head, utf8BOM)
	return len(head) - len(rest) + len(xmlDecl.Find(rest))
}
