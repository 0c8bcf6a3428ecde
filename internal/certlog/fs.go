package certlog

import "custode/internal/certlog/folder"

// Folder, FS, File and Dir are internal/certlog/folder's.
type (
	Folder = folder.Folder
	FS     = folder.FS
	File   = folder.File
	Dir    = folder.Dir
)
