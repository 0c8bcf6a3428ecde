// Package folder is the folder of a certified log: what it asks of a file system,
// that of the operating system, and files that appear whole or not at all.
// internal/certlog has other names for the types; the tests have a folder that
// forgets, tears and fails like a disk.
package folder

import (
	"io"
	"os"
	"path/filepath"

	"custode/internal/fault"
)

// Folder reads a log's folder. Names have no slash.
type Folder interface {
	// List returns the names of all files with their lengths.
	List() (map[string]int64, error)
	// Open opens a file to read.
	Open(name string) (File, error)
}

// FS is the folder of an open log. The tests have one that forgets, tears and
// fails like a disk.
type FS interface {
	Folder
	// Create makes a file that must not exist, to append to.
	Create(name string) (File, error)
	// Rename replaces newName.
	Rename(oldName, newName string) error
	Remove(name string) error
	// Sync makes creations, renames and removals durable.
	Sync() error
}

// File is one file of the folder; Write appends.
type File interface {
	io.ReaderAt
	io.Writer
	Sync() error
	Close() error
}

// Dir is a folder of the operating system.
type Dir string

// List implements Folder.
func (d Dir) List() (map[string]int64, error) {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return nil, fault.New(fault.Unavailable, "list certified log", err)
	}
	out := make(map[string]int64, len(entries))
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return nil, fault.New(fault.Unavailable, "list certified log", err)
		}
		if info.Mode().IsRegular() {
			out[e.Name()] = info.Size()
		}
	}
	return out, nil
}

// Open implements Folder.
func (d Dir) Open(name string) (File, error) { return wrapFile(os.Open(d.path(name))) }

// Create implements FS. The file can be read and written by its owner only.
func (d Dir) Create(name string) (File, error) {
	return wrapFile(os.OpenFile(d.path(name), os.O_RDWR|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600))
}

// wrapFile keeps a nil *os.File from becoming a File.
func wrapFile(f *os.File, err error) (File, error) {
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Rename implements FS.
func (d Dir) Rename(oldName, newName string) error {
	return os.Rename(d.path(oldName), d.path(newName))
}

// Remove implements FS.
func (d Dir) Remove(name string) error { return os.Remove(d.path(name)) }

// Sync implements FS.
func (d Dir) Sync() error {
	f, err := os.Open(string(d))
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func (d Dir) path(name string) string { return filepath.Join(string(d), name) }

// Publish writes a whole file under a temporary name and lets it appear
// durably: after it, either name holds all of data, or nothing changed.
func Publish(fs FS, name string, write func(io.Writer) error) error {
	tmp := name + ".tmp"
	if err := fs.Remove(tmp); err != nil && !os.IsNotExist(err) {
		return err
	}
	f, err := fs.Create(tmp)
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = fs.Rename(tmp, name)
	}
	if err == nil {
		err = fs.Sync()
	}
	return err
}

// ReadAll reads a file that may be at most limit octets long.
func ReadAll(fs Folder, name string, limit int64) ([]byte, error) {
	f, err := fs.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.NewSectionReader(f, 0, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fault.Newf(fault.Invalid, "read "+name, "longer than %d octets", limit)
	}
	return data, nil
}
