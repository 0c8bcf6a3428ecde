package certlog

import (
	"bufio"
	"io"

	"custode/internal/certlog/merkle"
)

// tree reads the stored hashes of the segments.
func tree(fs Folder, spans ...merkle.Span) *merkle.Hashes {
	return &merkle.Hashes{FS: fs, Name: func(n uint64) string { return segmentName(n, "hsh") }, Spans: spans}
}

func newBuffered(r io.Reader) io.Reader { return bufio.NewReaderSize(r, 1<<16) }
