package manifest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// maxFiles bounds how many files one Load reads.
const maxFiles = 4096

// Load reads manifests: files as they are named, folders with all they hold
// (*.yaml, *.yml and *.json, sorted by name, hidden ones left out; links to
// files are followed, links to folders are not). A file that is named twice is
// read once. What cannot be read or understood is a problem; the Set holds the
// rest.
func Load(paths []string) (*Set, []Problem) {
	set := new(Set)
	var problems []Problem
	unreadable := func(path string, err error) {
		problems = append(problems, Problem{Severity: Error, File: path, Message: err.Error()})
	}
	var files []string
	for _, p := range paths {
		files = append(files, find(p, unreadable)...)
	}
	seen := map[string]bool{}
	read := 0
	for _, f := range files {
		key := f
		if real, err := filepath.EvalSymlinks(f); err == nil {
			key = real
		}
		if abs, err := filepath.Abs(key); err == nil {
			key = abs
		}
		if seen[key] {
			continue
		}
		seen[key] = true
		if read++; read > maxFiles {
			unreadable(f, fmt.Errorf("is one of more than %d files; it and the next are not read", maxFiles))
			break
		}
		data, err := readFile(f)
		if err != nil {
			unreadable(f, err)
			continue
		}
		found, more := Parse(f, data)
		set.add(found)
		problems = append(problems, more...)
	}
	sortProblems(problems)
	return set, problems
}

// find returns the manifest files at or below path, sorted.
func find(path string, unreadable func(string, error)) []string {
	info, err := os.Stat(path)
	if err != nil {
		unreadable(path, bare(err))
		return nil
	}
	if !info.IsDir() {
		return []string{path}
	}
	entries, err := os.ReadDir(path) // sorted by name
	if err != nil {
		unreadable(path, bare(err))
		return nil
	}
	var files []string
	for _, e := range entries {
		name := filepath.Join(path, e.Name())
		switch ext := filepath.Ext(name); {
		case strings.HasPrefix(e.Name(), "."):
		case e.IsDir():
			files = append(files, find(name, unreadable)...)
		case ext == ".yaml" || ext == ".yml" || ext == ".json":
			// Stat follows a link, as ConfigMap volumes need.
			if info, err := os.Stat(name); err != nil {
				unreadable(name, bare(err))
			} else if info.Mode().IsRegular() {
				files = append(files, name)
			}
		}
	}
	return files
}

// bare takes the path off an error of package os: a Problem has it already.
func bare(err error) error {
	if p, ok := errors.AsType[*os.PathError](err); ok {
		return fmt.Errorf("%s: %w", p.Op, p.Err)
	}
	return err
}

// readFile reads one byte more than a file may have, so that the parser can
// tell that it is too large.
func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, bare(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, bare(err)
	}
	return data, nil
}

// LoadNode reads the node file at path; see ParseNode. The NodeFile is nil when
// there is none to speak of, and not to be used when a problem is an Error.
func LoadNode(path string) (*NodeFile, []Problem) {
	return LoadNodeIn(path, nil)
}
