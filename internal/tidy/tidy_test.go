package tidy

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/coterie-go/coterie"

// floors gives each top-level folder its height. Imports only point down.
var floors = map[string]int{
	"": 0, "internal": 0,
	"clock": 1, "hashring": 1, "quorum": 1,
	"transport": 2, "crdt": 2,
	"replication": 3, "membership": 3,
	"consensus": 4,
	"lock":      5,
	"txn":       6,
	"examples":  7,
}

// shared names the packages that their siblings may import.
var shared = []string{"replication/wal", "replication/merkle", "lock/deadlock"}

// elevated names packages that stand with their subject but run on a higher floor: the registers of quorum/abd are a
// protocol, and need a transport.
var elevated = map[string]int{"quorum/abd": 3}

// pkg is one directory of Go files.
type pkg struct {
	path  string // below the module, "" for the root
	name  string
	fset  *token.FileSet
	files map[string]*ast.File // by base name, without tests
	tests map[string]*ast.File
}

// load parses every package of the root module.
func load(t *testing.T) []*pkg {
	t.Helper()
	root := filepath.Join("..", "..")
	var all []*pkg
	err := filepath.WalkDir(root, func(dir string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !d.IsDir() {
			return nil
		}
		if name := d.Name(); dir != root && (strings.HasPrefix(name, ".") || name == "testdata") {
			return fs.SkipDir
		}
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil && dir != root {
			return fs.SkipDir // a nested module has rules of its own
		}
		p, err := parse(root, dir)
		if p != nil {
			all = append(all, p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func parse(root, dir string) (*pkg, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(names) == 0 {
		return nil, err
	}
	rel, err := filepath.Rel(root, dir)
	if err != nil {
		return nil, err
	}
	p := &pkg{path: filepath.ToSlash(rel), fset: token.NewFileSet(), files: map[string]*ast.File{}, tests: map[string]*ast.File{}}
	if p.path == "." {
		p.path = ""
	}
	for _, name := range names {
		f, err := parser.ParseFile(p.fset, name, nil, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		base := filepath.Base(name)
		if strings.HasSuffix(base, "_test.go") {
			p.tests[base] = f
			continue
		}
		p.files[base] = f
		p.name = f.Name.Name
	}
	return p, nil
}

func (p *pkg) imports(yield func(file, imported string)) {
	for base, f := range p.files {
		for _, spec := range f.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err == nil {
				yield(base, imported)
			}
		}
	}
}

// isTest reports whether the package is one of test helpers, such as simtest.
func (p *pkg) isTest() bool {
	return strings.HasSuffix(p.path, "test") || strings.HasPrefix(p.path, "internal/") && strings.Contains(p.path, "test")
}

func floorOf(p string) (int, bool) {
	if f, ok := elevated[p]; ok {
		return f, true
	}
	top, _, _ := strings.Cut(p, "/")
	f, ok := floors[top]
	return f, ok
}

func TestImportsPointDown(t *testing.T) {
	for _, p := range load(t) {
		own, ok := floorOf(p.path)
		if !ok {
			t.Errorf("%s: no such folder is planned; put the package below one that is", p.path)
			continue
		}
		p.imports(func(file, imported string) {
			below, ok := strings.CutPrefix(imported, module)
			if !ok || p.path == "" {
				if ok {
					t.Errorf("%s: the root package imports %s; it may import nothing of this module", file, imported)
				}
				return
			}
			below = strings.TrimPrefix(below, "/")
			floor, ok := floorOf(below)
			if !ok {
				t.Errorf("%s/%s imports %s, which is on no floor", p.path, file, imported)
				return
			}
			if !mayImport(p, own, below, floor) {
				t.Errorf("%s/%s imports %s: a package imports lower floors, its parent and ground rooms only", p.path, file, imported)
			}
		})
	}
}

func mayImport(p *pkg, own int, below string, floor int) bool {
	switch {
	case floor < own, below == "", strings.Contains("/"+below, "/internal/"): // Go itself keeps internal in its place
		return true
	case strings.HasPrefix(p.path, below+"/"): // the parent
		return true
	case slices.Contains(shared, below), p.isTest():
		return floor <= own
	}
	return false
}

// outside names what a package may import from other modules; test helpers may import the test tools too.
var (
	outside   = []string{"github.com/cespare/xxhash/v2", "golang.org/x/sync"}
	testTools = []string{"testing", "pgregory.net/rapid", "github.com/stretchr/testify"}
)

func TestImportsFromOutside(t *testing.T) {
	under := func(list []string, imported string) bool {
		return slices.ContainsFunc(list, func(m string) bool { return imported == m || strings.HasPrefix(imported, m+"/") })
	}
	for _, p := range load(t) {
		p.imports(func(file, imported string) {
			first, _, _ := strings.Cut(imported, "/")
			foreign := strings.Contains(first, ".") && !strings.HasPrefix(imported, module)
			switch {
			case under(testTools, imported):
				if !p.isTest() {
					t.Errorf("%s/%s imports %s: only tests and packages named *test do", p.path, file, imported)
				}
			case foreign && !under(outside, imported):
				t.Errorf("%s/%s imports %s: what needs more than the four modules stands in a nested module", p.path, file, imported)
			}
		})
	}
}

// declaresCore reports whether a type of the package has the methods Step and Ready of coterie.Core.
func (p *pkg) declaresCore() bool {
	has := map[string]bool{}
	for _, f := range p.files {
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv == nil {
				continue
			}
			if n := fn.Name.Name; n == "Step" && len(fn.Type.Params.List) >= 2 || n == "Ready" || n == "Replay" {
				has[n] = true
			}
		}
	}
	return has["Step"] && has["Ready"] && has["Replay"]
}

// Packages that run cores are not cores, and an example shows its protocol and what runs it in one file.
func (p *pkg) runsCores() bool {
	return p.path == "" || p.path == "transport/host" || strings.HasPrefix(p.path, "transport/sim") ||
		strings.HasPrefix(p.path, "examples/") || p.isTest()
}

func TestCoresArePure(t *testing.T) {
	banned := []string{"sync", "sync/atomic", "os", "net", "net/http", "math/rand", "crypto/rand", "context"}
	clock := []string{"Now", "Since", "Until", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick", "Sleep"}
	cores := 0
	for _, p := range load(t) {
		if p.runsCores() || !p.declaresCore() {
			continue
		}
		cores++
		for base, f := range p.files {
			if base == "node.go" || base == "host.go" || base == "client.go" { // what runs the core, or calls it from afar
				continue
			}
			for _, spec := range f.Imports {
				if imported, _ := strconv.Unquote(spec.Path.Value); slices.Contains(banned, imported) {
					t.Errorf("%s: a core imports no %s; what does stands in node.go", p.fset.Position(spec.Pos()), imported)
				}
			}
			ast.Inspect(f, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.GoStmt:
					t.Errorf("%s: a core starts no goroutine; its host does", p.fset.Position(n.Pos()))
				case *ast.SelectorExpr:
					x, ok := n.X.(*ast.Ident)
					if !ok || x.Obj != nil {
						break
					}
					if x.Name == "time" && slices.Contains(clock, n.Sel.Name) {
						t.Errorf("%s: a core reads no clock; time is its argument", p.fset.Position(n.Pos()))
					}
					if x.Name == "rand" && !strings.HasPrefix(n.Sel.Name, "New") && ast.IsExported(n.Sel.Name) && n.Sel.Name != "Rand" && n.Sel.Name != "PCG" {
						t.Errorf("%s: a core draws from the seed in its Config only", p.fset.Position(n.Pos()))
					}
				}
				return true
			})
		}
	}
	if cores == 0 {
		t.Error("no package declares a core: the test looks for the wrong thing")
	}
}

func TestPackagesSayWhatTheyAre(t *testing.T) {
	for _, p := range load(t) {
		if len(p.files) == 0 {
			continue
		}
		documented := false
		for _, f := range p.files {
			documented = documented || f.Doc != nil
		}
		if !documented {
			t.Errorf("%s: no package comment", p.path)
		}
		if p.name == "main" || p.path == "" || strings.Contains("/"+p.path, "/internal/") {
			continue
		}
		var tests []*ast.File
		for _, f := range p.tests {
			tests = append(tests, f)
		}
		runnable := slices.ContainsFunc(doc.Examples(tests...), func(e *doc.Example) bool { return e.Output != "" || e.EmptyOutput })
		if !runnable {
			t.Errorf("%s: no Example with an Output comment", p.path)
		}
	}
}

func TestReadmeMapsEveryPackage(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range load(t) {
		if p.path == "" || strings.Contains("/"+p.path, "/internal/") || len(p.files) == 0 {
			continue
		}
		if !strings.Contains(string(readme), "`"+p.path+"`") {
			t.Errorf("README.md: its map does not name `%s`", p.path)
		}
	}
}

func TestGoModNamesFourModules(t *testing.T) {
	mod, err := os.ReadFile(filepath.Join("..", "..", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	var direct []string
	for line := range strings.Lines(string(mod)) {
		line = strings.TrimPrefix(strings.TrimSpace(line), "require ")
		name, _, _ := strings.Cut(line, " ")
		first, _, _ := strings.Cut(name, "/")
		if strings.Contains(first, ".") && !strings.Contains(line, "// indirect") && name != module {
			direct = append(direct, name)
		}
	}
	want := []string{"github.com/cespare/xxhash/v2", "github.com/stretchr/testify", "golang.org/x/sync", "pgregory.net/rapid"}
	if !slices.Equal(direct, want) {
		t.Errorf("go.mod requires %v directly, want %v", direct, want)
	}
}
