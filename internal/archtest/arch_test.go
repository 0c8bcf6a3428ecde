// Package archtest keeps the rules of docs/architecture.md as tests: which
// room may open which door, where each dangerous import lives, how big things
// may grow. A rule that is not a test is a wish. It has no code to import.
package archtest

import (
	"go/ast"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// leaves never import one another; they meet in cmd/.
var leaves = []string{"authcore", "hsm", "modem", "otpvault"}

// doors lists, for a folder, the only folders of ours its non-test code may
// import (besides itself and what lies below it).
var doors = map[string][]string{
	"internal/fault":   {},
	"internal/id":      {"internal/fault"},
	"hsm":              {"internal/fault", "internal/id"},
	"modem":            {"internal/fault", "internal/id"},
	"otpvault":         {"internal/fault", "internal/id"},
	"authcore":         {"internal/fault", "internal/id"},
	"internal/config":  {"internal/fault", "internal/id"},
	"internal/admin":   {"internal/fault", "internal/id"},
	"internal/metrics": {"internal/fault", "internal/id"},
	"internal/process": {"internal/fault"},
	// The auditor shares no code with what it audits.
	"internal/conformance": {"internal/fault"},
	// The store speaks its consumers' types; they never import it (ADR 0002).
	"internal/store": {"internal/fault", "internal/id", "authcore", "otpvault", "modem", "hsm/rewrap", "hsm/rollover"},
	// Boxes know neither rows nor the HSM; what hides columns knows no consumer.
	"internal/store/veil": {"internal/fault"},
	"internal/store/hide": {"internal/fault", "internal/id", "internal/store/veil", "internal/store/sqlite"},
	"internal/forget":     {"internal/fault"},
	"simulators":          {},
	// The certified log knows neither the login nor the token.
	"internal/certlog": {"internal/fault"},
	// Where the two meet.
	"internal/journal":   {"internal/fault", "internal/id", "internal/certlog", "authcore"},
	"cmd/simlab":         {"simulators"},
	"cmd/custode":        {"internal", "hsm", "modem", "otpvault", "authcore"},
	"cmd/custode-verify": {"internal/certlog", "internal/fault"}, // stands alone
}

// inner lists doors inside a leaf: folder -> folders of the same leaf it must not import.
var inner = map[string][]string{
	"authcore/saml":      {"authcore/web", "authcore/registry"},
	"authcore/registry":  {"authcore/web"},
	"modem/at":           {"modem/pdu", "modem/bay", "modem/verdict", "modem/report", "modem/profile", "modem/simpin"},
	"modem/pdu":          {"modem/at", "modem/port", "modem/bay", "modem/verdict", "modem/report", "modem/profile", "modem/simpin"},
	"modem/port":         {"modem/at", "modem/pdu", "modem/bay", "modem/verdict", "modem/report", "modem/profile", "modem/simpin"},
	"modem/profile":      {"modem/at", "modem/pdu", "modem/port", "modem/bay"},
	"modem/simpin":       {"modem/at", "modem/pdu", "modem/port", "modem/bay"},
	"modem/verdict":      {"modem/pdu", "modem/port", "modem/bay"},
	"modem/report":       {"modem/at", "modem/port", "modem/bay"},
	"authcore/session":   {"authcore/web", "authcore/registry"},
	"authcore/lanes":     {"authcore/web", "authcore/registry", "authcore/saml", "authcore/session"},
	"authcore/passhash":  {"authcore/web", "authcore/registry", "authcore/saml", "authcore/session", "authcore/register", "authcore/attribute"},
	"authcore/web/crowd": {"authcore/saml", "authcore/registry", "authcore/session", "authcore/register"},
	// The protocol knows neither the module nor the ceremony.
	"hsm/worker": {"hsm/pkcs11"},
	// The judge of codes knows no form of storage; the reader of deliveries and the
	// way into apps know no record; the sealed seed knows only the judge.
	"otpvault/oath":   {"otpvault/seed", "otpvault/device", "otpvault/pskc", "otpvault/enrol", "otpvault/proof", "otpvault/issuing"},
	"otpvault/seed":   {"otpvault/device", "otpvault/pskc", "otpvault/enrol", "otpvault/proof", "otpvault/issuing"},
	"otpvault/device": {"otpvault/seed", "otpvault/pskc", "otpvault/enrol", "otpvault/proof", "otpvault/issuing"},
	"otpvault/pskc":   {"otpvault/seed", "otpvault/device", "otpvault/enrol", "otpvault/proof", "otpvault/issuing"},
	"otpvault/enrol":  {"otpvault/seed", "otpvault/device", "otpvault/pskc", "otpvault/proof", "otpvault/issuing"},
	// The judge at a login and the office that issues do not know each other.
	"otpvault/proof":   {"otpvault/issuing", "otpvault/pskc"},
	"otpvault/issuing": {"otpvault/proof"},
	"otpvault/reseal":  {"otpvault/proof", "otpvault/issuing", "otpvault/pskc", "otpvault/enrol"},
	// What decides about keys holds none.
	"hsm/shamir":   {"hsm/pkcs11", "hsm/custody", "hsm/order", "hsm/rollover", "hsm/rewrap"},
	"hsm/custody":  {"hsm/pkcs11", "hsm/order", "hsm/rollover", "hsm/rewrap"},
	"hsm/order":    {"hsm/pkcs11", "hsm/custody", "hsm/shamir", "hsm/rollover", "hsm/rewrap"},
	"hsm/rollover": {"hsm/pkcs11", "hsm/custody", "hsm/order", "hsm/rewrap"},
	"hsm/rewrap":   {"hsm/pkcs11", "hsm/custody", "hsm/order", "hsm/rollover"},
	// It reads what nobody has verified yet.
	"authcore/registry/aggregate": {"authcore/web", "authcore/registry"},
	"authcore/register":           {"authcore/web", "authcore/registry", "authcore/session"},
	// The parts of the log do not know the whole.
	"internal/certlog/cades":   {"internal/certlog/tsa", "internal/certlog/attest", "internal/certlog/notary"},
	"internal/certlog/tsa":     {"internal/certlog/cades", "internal/certlog/attest", "internal/certlog/notary"},
	"internal/certlog/attest":  {"internal/certlog/notary", "internal/certlog/tsa", "internal/certlog/keep", "internal/certlog/witness"},
	"internal/certlog/keep":    {"internal/certlog/attest", "internal/certlog/cades", "internal/certlog/tsa"},
	"internal/certlog/witness": {"internal/certlog/attest", "internal/certlog/cades", "internal/certlog/tsa"},
}

// homes: an import path (or its prefix) and the only folders whose non-test
// code may use it. Simulators are below the seam and have their own copies of
// everything, so they are judged by the second list only.
var homes = []struct {
	imp  string
	home []string
}{
	{"github.com/valyala/fasthttp", []string{"authcore/web", "internal/admin"}},
	{"database/sql", []string{"internal/store"}},
	{"github.com/mattn/go-sqlite3", []string{"internal/store"}},
	{"github.com/miekg/pkcs11", []string{"hsm/pkcs11"}},
	{"github.com/ThalesGroup/crypto11", []string{"hsm/pkcs11"}},
	{"github.com/tarm/serial", []string{"modem/port"}},
	// otpvault/pskc scans its XML by itself: both readers below keep text, there seeds, in
	// strings, which nobody can clear; so it is no home of either.
	{"encoding/xml", nil}, // its name space handling is not fit for signatures
	{"github.com/beevik/etree", []string{"authcore/saml", "authcore/registry", "simulators/spsim", "simulators/registrysim"}},
	{"github.com/russellhaering/goxmldsig", []string{"simulators/spsim", "simulators/registrysim"}},
	{"github.com/boombuler/barcode", []string{"otpvault/enrol"}},
	{"os/exec", []string{"internal/process", "simulators", "cmd/simlab"}},
	// Clients are the registry, single logout, and those of the certified log, for which cmd makes the
	// http.Client; internal/metrics serves figures on loopback;
	// the pages use its constants.
	{"net/http", []string{"authcore/web", "authcore/registry", "authcore/session/backchannel", "internal/certlog/tsa", "internal/certlog/witness",
		"internal/journal", "internal/conformance", "internal/metrics", "simulators", "cmd"}},
	{"net/smtp", []string{"internal/certlog/witness/mail"}},
	{"html/template", []string{"authcore/web", "internal/certlog/attest", "simulators"}},
	{"github.com/smallstep/pkcs7", []string{"internal/certlog/cades", "internal/certlog/tsa"}},
	{"github.com/digitorus/timestamp", []string{"simulators/tsasim"}}, // it verifies less than we must
	{"codeberg.org/go-pdf/fpdf", []string{"internal/certlog/attest", "cmd/custode/ceremonycmd"}},
	{"golang.org/x/mod", []string{"internal/certlog"}},
	{"golang.org/x/net/html", []string{"internal/conformance", "simulators"}},
	{"github.com/creack/pty", []string{"simulators"}},
	{"log", nil},
	{"plugin", nil},
	{"math/rand", nil},
	{"math/rand/v2", []string{"simulators", "cmd/simlab"}},
}

// names reports whether the table's entry speaks of the import: the same path
// or, for modules (which have a dot in their host), one below it.
func names(entry, imp string) bool {
	return imp == entry || strings.Contains(entry, ".") && strings.HasPrefix(imp, entry+"/")
}

// pure packages touch no clock, no files, no network.
var pure = []string{"authcore/saml", "authcore/register", "internal/certlog/cades", "internal/certlog/der", "internal/certlog/frame", "internal/certlog/merkle", "internal/certlog/index", "internal/certlog/pack", "modem/pdu", "modem/verdict", "modem/report", "modem/profile", "otpvault", "otpvault/oath", "otpvault/seed", "otpvault/device", "otpvault/pskc", "otpvault/enrol", "otpvault/proof", "otpvault/issuing", "otpvault/reseal", "internal/id", "internal/fault", "hsm", "hsm/custody", "hsm/order", "hsm/rewrap", "hsm/rollover", "hsm/shamir", "hsm/worker/judge", "modem/budget", "modem/meter", "modem/alarm"}

func TestLeavesDoNotKnowEachOther(t *testing.T) {
	for _, s := range tree(t) {
		for _, leaf := range leaves {
			if !under(s.dir, leaf) {
				continue
			}
			for _, imp := range s.imports() {
				for _, other := range leaves {
					if o := own(imp); o != "" && other != leaf && under(o, other) {
						t.Errorf("%s imports %s: leaves meet in cmd/ only", s.path(), imp)
					}
				}
			}
		}
	}
}

func TestDoors(t *testing.T) {
	for _, s := range tree(t) {
		if s.test {
			continue
		}
		for room, allowed := range doors {
			if !under(s.dir, room) || strings.HasSuffix(s.dir, "test") && s.dir != room {
				continue // conformance suites (storetest, hsmtest, modemtest) are tests
			}
			for _, imp := range s.imports() {
				if o := own(imp); o != "" && !under(o, room) && !underAny(o, allowed) {
					t.Errorf("%s imports %s: %s may open only %v", s.path(), imp, room, allowed)
				}
			}
		}
		for room, closed := range inner {
			for _, imp := range s.imports() {
				if o := own(imp); under(s.dir, room) && underAny(o, closed) {
					t.Errorf("%s imports %s: that door is closed", s.path(), imp)
				}
			}
		}
	}
}

func TestSimulatorsAreOutside(t *testing.T) {
	for _, s := range tree(t) {
		for _, imp := range s.imports() {
			o := own(imp)
			if o == "" {
				continue
			}
			if under(s.dir, "simulators") && !under(o, "simulators") {
				t.Errorf("%s imports %s: a simulator shares no code with the product", s.path(), imp)
			}
			if !s.test && under(o, "simulators") && !under(s.dir, "simulators") && s.dir != "internal/certlog/certlogtest" && s.dir != "cmd/simlab" && !under(s.dir, "internal/e2e") {
				t.Errorf("%s imports %s: the product can reach no simulator", s.path(), imp)
			}
		}
	}
}

func TestOneHomePerDangerousImport(t *testing.T) {
	for _, s := range tree(t) {
		if s.test || under(s.dir, "internal/e2e") || strings.HasSuffix(s.dir, "test") {
			continue
		}
		for _, imp := range s.imports() {
			for _, h := range homes {
				if names(h.imp, imp) && !underAny(s.dir, h.home) {
					t.Errorf("%s imports %s: its home is %v", s.path(), imp, h.home)
				}
			}
		}
	}
}

func TestPurePackages(t *testing.T) {
	for _, s := range tree(t) {
		for _, p := range pure {
			if s.dir != p || s.test {
				continue
			}
			for _, imp := range s.imports() {
				switch imp {
				case "os", "net", "net/http", "crypto/rand", "log/slog":
					if imp == "log/slog" && (p == "otpvault" || p == "otpvault/proof" || p == "otpvault/issuing") {
						continue
					}
					t.Errorf("%s imports %s: %s is pure", s.path(), imp, p)
				}
			}
			ast.Inspect(s.file, func(n ast.Node) bool {
				if sel, ok := n.(*ast.SelectorExpr); ok {
					if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" && (sel.Sel.Name == "Now" || sel.Sel.Name == "Sleep") {
						t.Errorf("%s: time.%s: the clock is a parameter", s.fset.Position(n.Pos()), sel.Sel.Name)
					}
				}
				return true
			})
		}
	}
}

// TestTablesNameWhatExists fails when a folder in the tables is gone: a rule
// about nothing protects nothing.
func TestTablesNameWhatExists(t *testing.T) {
	base := root(t)
	exists := func(dir string) {
		if st, err := os.Stat(filepath.Join(base, dir)); err != nil || !st.IsDir() {
			t.Errorf("the tables name %q, which is not a folder", dir)
		}
	}
	for _, l := range append(append([]string{}, leaves...), pure...) {
		exists(l)
	}
	for room, allowed := range doors {
		exists(room)
		for _, a := range allowed {
			exists(a)
		}
	}
	for room, closed := range inner {
		exists(room)
		for _, c := range closed {
			exists(c)
		}
	}
	used := map[string]bool{}
	for _, s := range tree(t) {
		for _, imp := range s.imports() {
			used[imp] = true
		}
	}
	for _, h := range homes {
		for _, d := range h.home {
			exists(d)
		}
		found := len(h.home) == 0 // a ban needs no user
		for imp := range used {
			found = found || names(h.imp, imp)
		}
		if !found {
			t.Errorf("the tables name the import %q, which nobody uses", h.imp)
		}
	}
}

func TestEachPackageHasOneComment(t *testing.T) {
	comments := map[string][]string{}
	dirs := map[string]bool{}
	for _, s := range tree(t) {
		if s.test && s.dir != "internal/archtest" && s.dir != "internal/e2e" {
			continue
		}
		dirs[s.dir] = true
		if s.file.Doc != nil && !s.generated {
			comments[s.dir] = append(comments[s.dir], s.name)
		}
	}
	for d := range dirs {
		if len(comments[d]) != 1 && !onlyGenerated(t, d) {
			t.Errorf("%s: want exactly one package comment, have %v", d, comments[d])
		}
	}
}

func onlyGenerated(t *testing.T, dir string) bool {
	for _, s := range tree(t) {
		if s.dir == dir && !s.test && !s.generated {
			return false
		}
	}
	return true
}

// The sizes are alarms (docs/architecture.md): a bigger thing hides a second thing.
const (
	maxPackage   = 2500
	maxFile      = 600
	maxFunction  = 80
	maxInterface = 5
	maxMain      = 250
)

func TestSizes(t *testing.T) {
	pkg := map[string]int{}
	for _, s := range tree(t) {
		if s.generated {
			continue
		}
		limit := maxFile
		if s.name == "main.go" {
			limit = maxMain
		}
		if s.test {
			limit = 1200
		}
		if s.lines > limit {
			t.Errorf("%s has %d lines, alarm at %d", s.path(), s.lines, limit)
		}
		if s.test {
			continue
		}
		pkg[s.dir] += s.lines
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if l := s.fset.Position(n.End()).Line - s.fset.Position(n.Pos()).Line + 1; l > maxFunction {
					t.Errorf("%s: func %s has %d lines, alarm at %d", s.path(), n.Name.Name, l, maxFunction)
				}
			case *ast.InterfaceType:
				if n.Methods.NumFields() > maxInterface {
					t.Errorf("%s: an interface has %d methods, alarm at %d", s.fset.Position(n.Pos()), n.Methods.NumFields(), maxInterface)
				}
			}
			return true
		})
	}
	for dir, lines := range pkg {
		if lines > maxPackage {
			t.Errorf("package %s has %d lines, alarm at %d", dir, lines, maxPackage)
		}
	}
}

var badName = regexp.MustCompile(`(^|[^a-z])(util|utils|common|helper|helpers|manager|service|misc)([^a-z]|$)`)

func TestNames(t *testing.T) {
	for _, s := range tree(t) {
		if badName.MatchString(path.Base(s.dir)) || badName.MatchString(strings.TrimSuffix(s.name, ".go")) {
			t.Errorf("%s: the name says nothing", s.path())
		}
	}
}

// todoOwner lets a TODO stand only with an issue number.
var (
	todo      = regexp.MustCompile(`\b(TODO|FIXME|XXX)\b`)
	todoOwner = regexp.MustCompile(`TODO\(#\d+\)`)
)

func TestNoOrphanTodo(t *testing.T) {
	for _, s := range tree(t) {
		if s.dir == "internal/archtest" {
			continue
		}
		for _, g := range s.file.Comments {
			if txt := g.Text(); todo.MatchString(txt) && !todoOwner.MatchString(txt) {
				t.Errorf("%s: TODO without an issue number", s.fset.Position(g.Pos()))
			}
		}
	}
}

func TestTopLevelIsTheFrame(t *testing.T) {
	frame := map[string]bool{
		"cmd": true, "hsm": true, "modem": true, "authcore": true, "otpvault": true, "firmware": true, "systemd": true,
		"simulators": true, "internal": true, "docs": true, ".ci": true, ".git": true,
		"go.mod": true, "go.sum": true, "Makefile": true, "README.md": true,
		// docs/adr/0001-top-level-files.md
		"LICENSE": true, "CHANGELOG.md": true, ".gitignore": true,
		// not committed
		"bin": true, "bench": true, "node_modules": true,
	}
	entries, err := os.ReadDir(root(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !frame[e.Name()] {
			t.Errorf("top level holds %q, which is not in the frame", e.Name())
		}
	}
	mod, err := os.ReadFile(filepath.Join(root(t), "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if regexp.MustCompile(`(?m)^\s*replace\b`).Match(mod) {
		t.Error("go.mod has a replace line")
	}
}
