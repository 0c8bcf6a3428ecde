package certlog

import (
	"custode/internal/certlog/frame"
	"custode/internal/certlog/merkle"
)

// tree reads the stored hashes of the segments.
func tree(fs Folder, spans ...merkle.Span) *merkle.Hashes {
	return &merkle.Hashes{FS: fs, Name: func(n uint64) string { return segmentName(n, "hsh") }, Spans: spans}
}

// Disclose decrypts a leaf with the record's own key; see frame.Disclose.
func Disclose(log ID, segment, seq uint64, key RecordKey, sealed []byte) (Record, error) {
	return frame.Disclose(log, segment, seq, key, sealed)
}
