package main

import (
	"cmp"
	"go/ast"
	"go/build"
	"go/doc"
	"go/parser"
	"go/token"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// pair is one thing to store.
type pair struct{ key, value string }

// identifiers lists the exported identifiers of the standard library, "net/http.Client.Do", with their synopses: real
// data that every machine with Go has.
func identifiers(limit int) ([]pair, error) {
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return nil, err
	}
	src := filepath.Join(strings.TrimSpace(string(goroot)), "src")
	found := map[string]string{}
	err = filepath.WalkDir(src, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || !d.IsDir():
			return err
		case d.Name() == "internal" || d.Name() == "vendor" || d.Name() == "testdata" || d.Name() == "cmd":
			return filepath.SkipDir
		case len(found) < 4*limit: // enough to choose from
			return addPackage(found, src, path)
		}
		return filepath.SkipAll
	})
	pairs := make([]pair, 0, len(found))
	for key, value := range found {
		pairs = append(pairs, pair{key, value})
	}
	slices.SortFunc(pairs, func(a, b pair) int { return cmp.Compare(a.key, b.key) })
	return pairs[:min(limit, len(pairs))], err
}

// addPackage finds what one folder exports.
func addPackage(found map[string]string, src, dir string) error {
	pkg, err := build.ImportDir(dir, 0)
	if err != nil {
		return nil // no Go files for this system
	}
	fset := token.NewFileSet()
	var files []*ast.File
	for _, name := range pkg.GoFiles {
		file, err := parser.ParseFile(fset, filepath.Join(dir, name), nil, parser.ParseComments)
		if err != nil {
			return err
		}
		files = append(files, file)
	}
	path, err := filepath.Rel(src, dir)
	if err != nil {
		return err
	}
	path = filepath.ToSlash(path)
	p, err := doc.NewFromFiles(fset, files, path)
	if err != nil {
		return err
	}
	add := func(name, text string) { found[path+"."+name] = p.Synopsis(text) }
	values := func(all []*doc.Value) {
		for _, v := range all {
			for _, name := range v.Names {
				add(name, v.Doc)
			}
		}
	}
	values(p.Consts)
	values(p.Vars)
	for _, f := range p.Funcs {
		add(f.Name, f.Doc)
	}
	for _, t := range p.Types {
		add(t.Name, t.Doc)
		values(t.Consts)
		values(t.Vars)
		for _, f := range t.Funcs {
			add(f.Name, f.Doc)
		}
		for _, m := range t.Methods {
			add(t.Name+"."+m.Name, m.Doc)
		}
	}
	return nil
}
