// Package dialect holds what tells one make of modem from another, as data: how
// it introduces itself, what it says on its own, what it refuses though the
// standards want it, how it shapes its answers. The simulated modem reads it; it
// knows nothing of ptys or networks.
//
// The facts come from public drivers, vendors' command manuals and bug reports;
// where firmwares of one make differ, the profile takes the more troublesome
// habit. Times are those of the real device: the bank scales them (Config.Pace).
// Only simulators may import it.
package dialect

import (
	"maps"
	"slices"
	"time"
)

// Line is something a modem says a while after power-on. "%PIN" in Text stands for
// the card's state as +CPIN would tell it.
type Line struct {
	After time.Duration
	Text  string
}

// Area is a message store.
type Area struct {
	Name  string
	Slots int
	// Alias names the area whose slots this one shows; "" when it has its own.
	Alias string
}

// Profile is one make of modem.
type Profile struct {
	Name                          string
	Manufacturer, Model, Revision string // +CGMI, +CGMM, +CGMR
	Bearer                        string // "2G" or "LTE": which latency Config.ByBearer gives
	USB                           bool   // a reset makes the port vanish for BootTime
	ResetCommands                 []string

	// Shapes.
	LineEnd  string // between lines; "\r\n" when empty
	Prompt   string // "\r\n> " when empty
	EscMute  bool   // ESC at the prompt is answered by nothing
	LateEcho bool   // the echo of a line follows its answer
	Unknown  string // answer to commands it does not know; "" is +CME ERROR: 4

	// Power-on.
	BootTime     time.Duration // until the port is there
	Boot         []Line
	PlugLines    bool          // Boot is said after a plug too, not only after a restart
	SIMBusy      time.Duration // after boot, card commands are refused with SIMBusyCode
	SIMBusyCode  int           // 14 when 0
	RadioBusy    int           // commands refused with 515 after AT+CFUN=1
	ResetTime    time.Duration // ATZ takes this long
	UnderVoltage string

	// Card.
	PINWithoutOK, PINQuoted bool
	PINCounters             string // command that tells tries left, with "?" where it wants one
	PINCountersFmt          string // %[1]d PIN tries, %[2]d PUK tries, %[3]s state
	CardID                  string // +CCID, +ICCID, +QCCID, ^ICCID?
	NoCredit                int    // CMS code when the card has no credit
	FullCode                int    // CMS code of submissions while the store is full; 0: they go on

	// Messages.
	CSMS            string // the parenthesis of +CSMS=?; values 0 and 1 follow from it
	CPMS            string // answer to +CPMS=?, verbatim
	CPMSMemories    int    // 3, or 2 where a third is refused
	Areas           []Area
	FirstIndex      int
	CNMITest        string // answer to +CNMI=?, verbatim
	Modes, MTs, DSs string // digits really accepted
	CNMIRefusal     string // "+CMS ERROR: 303" when empty
	ReportFmt       string // %d the length; "+CDS: %d" when empty
	ReadFmt         string // %[1]d state, %[2]d length; "+CMGR: %[1]d,,%[2]d" when empty
	ReadEmptyOK     bool   // CMGR of a free slot is a bare OK instead of 321
	StoredFmt       string // of a stored report: %[1]s area, %[2]d index; "+CDSI: \"%[1]s\",%[2]d" when empty
	StoredSays      string // area announced for stored reports when it is not the true one
	StoredUnread    bool   // stored reports cannot be read: CMS 321
	NoReports       bool
	AckRefused      bool          // +CNMA is refused ...
	AckOrHang       bool          // ... and reports not acknowledged hang the modem
	AckWithin       time.Duration // what CSMS=1 gives the host to say +CNMA
	FullLine        string        // said when the store is full
	CSMPClearsSCA   bool
	CMMSRefusal     string // "" accepts

	// Network.
	ThreeDigits bool   // +CREG: 000,001
	Registers   int    // stat when everything is well; 1 when 0
	CESQ        bool   // knows +CESQ
	CEREG       bool   // knows +CEREG
	MuteCommand string // silences Chatter, such as ^CURC=0
	Chatter     []string
	Extras      []string // further command prefixes answered by OK
}

// Names lists the profiles, in order.
func Names() []string {
	names := slices.Collect(maps.Keys(profiles))
	slices.Sort(names)
	return names
}

// Get returns a copy of a profile with its defaults filled in; ok is false for a
// name that is not in Names.
func Get(name string) (Profile, bool) {
	p, ok := profiles[name]
	if !ok {
		return p, false
	}
	p.Name = name
	def(&p.LineEnd, "\r\n")
	def(&p.Prompt, "\r\n> ")
	def(&p.CNMIRefusal, "+CMS ERROR: 303")
	def(&p.ReportFmt, "+CDS: %d")
	def(&p.ReadFmt, "+CMGR: %[1]d,,%[2]d")
	def(&p.StoredFmt, `+CDSI: "%[1]s",%[2]d`)
	def(&p.CardID, "+CCID")
	def(&p.Modes, "012")
	def(&p.MTs, "012")
	def(&p.DSs, "012")
	def(&p.CSMS, "(0,1)")
	def(&p.CNMITest, "+CNMI: (0-2),(0-3),(0,2),(0-2),(0,1)")
	def(&p.CPMS, `+CPMS: ("SM","ME","SR"),("SM","ME"),("SM","ME")`)
	if p.Areas == nil {
		p.Areas = []Area{{Name: "SM", Slots: 20}, {Name: "ME", Slots: 50}, {Name: "SR", Slots: 10}}
	}
	if p.CPMSMemories == 0 {
		p.CPMSMemories = 3
	}
	if p.SIMBusyCode == 0 {
		p.SIMBusyCode = 14
	}
	if p.NoCredit == 0 {
		p.NoCredit = 50
	}
	if p.Registers == 0 {
		p.Registers = 1
	}
	if p.AckWithin == 0 {
		p.AckWithin = 15 * time.Second
	}
	p.Areas, p.Chatter, p.Boot = slices.Clone(p.Areas), slices.Clone(p.Chatter), slices.Clone(p.Boot)
	return p, true
}

func def(s *string, v string) {
	if *s == "" {
		*s = v
	}
}
