package certified

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"custode/internal/admin"
	"custode/internal/certlog"
	"custode/internal/certlog/notary"
	"custode/internal/certlog/trial"
	"custode/internal/certlog/witness/mail"
	"custode/internal/config"
	"custode/internal/fault"
)

// Host is the command line that the subcommands are part of.
type Host interface {
	// MachineFile reads the machine file.
	MachineFile() (*config.Machine, error)
	// Ask calls a method of the daemon and prints the result.
	Ask(method string, arg any) error
}

// Commands are the subcommands of `custode log`.
type Commands struct {
	Status  logStatusCmd  `cmd:"" help:"Show both logs: records, what waits for seal or time-stamp, witnesses, last night, holds."`
	Verify  logVerifyCmd  `cmd:"" help:"Verify a log's folder off-line, from public certificates alone; status 65 names the first divergence."`
	Seal    logSealCmd    `cmd:"" help:"Close, seal and time-stamp the open segment now."`
	Export  logExportCmd  `cmd:"" help:"Copy sealed segments to a folder, or write their records in clear."`
	Destroy logDestroyCmd `cmd:"" help:"Destroy what was kept longer than the retention and is under no hold."`
	Hold    logHoldCmd    `cmd:"" help:"Keep an interval from being destroyed, or release it."`
	Attest  logAttestCmd  `cmd:"" help:"Make an attestation of a subject's accesses (ZIP)."`
	Bench   logBenchCmd   `cmd:"" help:"Measure the log on this machine's disk."`
}

// await has the daemon do a job and prints its result.
func await(c Host, method string, arg any) error {
	machine, err := c.MachineFile()
	if err != nil {
		return err
	}
	result, err := admin.Await(machine.AdminSocket, method, "log/job", arg)
	if err != nil {
		return err
	}
	fmt.Println(string(result))
	return nil
}

type logStatusCmd struct{}

// Run asks the daemon.
func (logStatusCmd) Run(c Host) error { return c.Ask("log/status", nil) }

// which names a log on the command line.
type which struct {
	Log string `default:"transactions" enum:"transactions,security" help:"transactions or security."`
}

type logSealCmd struct{ which }

// Run asks the daemon.
func (a *logSealCmd) Run(c Host) error {
	return await(c, "log/seal", registerArgument{Actor: admin.Actor(), Log: a.Log})
}

type logVerifyCmd struct {
	which
	Folder   string        `arg:"" optional:"" type:"existingdir" help:"Folder of the log or of a copy; default: the machine file's."`
	Seal     []string      `type:"existingfile" required:"" placeholder:"FILE" help:"Certificate whose seals are trusted (PEM); may be given again."`
	TSA      []string      `type:"existingfile" placeholder:"FILE" help:"Roots of time-stamping authorities (PEM); default: the machine file's."`
	Witness  []string      `type:"existingdir" placeholder:"FOLDER" help:"Checkpoints kept elsewhere; may be given again."`
	Mail     []string      `type:"path" placeholder:"PATH" help:"Letters kept elsewhere: a folder, an mbox or one letter; may be given again."`
	Patience time.Duration `default:"26h" help:"How long a segment may wait for its seal and time-stamp."`
}

// Run verifies without the daemon and without a key.
func (a *logVerifyCmd) Run(c Host) error {
	if a.Folder == "" || len(a.TSA) == 0 {
		machine, err := c.MachineFile()
		if err != nil {
			return err
		}
		if a.Folder == "" {
			a.Folder = filepath.Join(machine.CertifiedLog.Directory, a.Log)
		}
		if len(a.TSA) == 0 && machine.CertifiedLog.TSACertificates != "" {
			a.TSA = []string{machine.CertifiedLog.TSACertificates}
		}
	}
	judge, err := judgeOf(a.Seal, a.TSA)
	if err != nil {
		return err
	}
	cfg := certlog.VerifyConfig{FS: certlog.Dir(a.Folder), Judge: judge, Now: time.Now(), Patience: a.Patience}
	for _, dir := range a.Witness {
		if err := cfg.AddWitness(dir, certlog.Dir(dir)); err != nil {
			return err
		}
	}
	for _, path := range a.Mail {
		seals, err := mail.Read(path)
		if err != nil {
			return err
		}
		fmt.Printf("%s: %d seals", path, len(seals))
		if bad := cfg.AddLetters(path, seals); bad > 0 {
			fmt.Printf(", %d of them not good and ignored", bad)
		}
		fmt.Println()
	}
	r, err := certlog.Verify(cfg)
	if err != nil {
		return err
	}
	fmt.Printf("log %s (%s): %d segments sealed, %d time-stamped, %d not sealed yet; %d records, %d of them destroyed\nroot %x\n",
		r.Name, r.Log, r.Segments, r.Stamped, r.Unsealed, r.Records, r.Destroyed, r.Root)
	if r.Problem != nil {
		fmt.Println("DIVERGES:", r.Problem)
		return fault.Newf(fault.Invalid, "verify "+a.Folder, "%s", r.Problem)
	}
	fmt.Println("VERIFIED")
	return nil
}

// judgeOf trusts those seals and roots of time-stamping authorities, PEM files.
func judgeOf(seals, authorities []string) (*notary.Notary, error) {
	judge := &notary.Notary{Roots: x509.NewCertPool()}
	for _, name := range seals {
		certs, err := config.Certificates(name)
		if err != nil {
			return nil, err
		}
		judge.Pinned = append(judge.Pinned, certs...)
	}
	for _, name := range authorities {
		certs, err := config.Certificates(name)
		if err != nil {
			return nil, err
		}
		for _, cert := range certs {
			judge.Roots.AddCert(cert)
		}
	}
	return judge, nil
}

type logDestroyCmd struct {
	which
	Before time.Time `required:"" format:"2006-01-02" help:"Segments sealed before this day (UTC); not later than the retention allows." placeholder:"DATE"`
	Reason string    `required:"" help:"Why; kept in the sealed statement, which verifiers and witnesses can read: name nobody."`
}

// Run asks the daemon.
func (a *logDestroyCmd) Run(c Host) error {
	return await(c, "log/destroy", registerArgument{Actor: admin.Actor(), Log: a.Log, Before: a.Before, Reason: a.Reason})
}

type logHoldCmd struct {
	Add     logHoldAddCmd     `cmd:"" help:"Keep an interval."`
	Release logHoldReleaseCmd `cmd:"" help:"End a hold."`
}

type logHoldAddCmd struct {
	which
	From   time.Time `required:"" format:"2006-01-02" help:"First day (UTC)." placeholder:"DATE"`
	To     time.Time `required:"" format:"2006-01-02" help:"Day after the last (UTC)." placeholder:"DATE"`
	Case   string    `required:"" help:"Number of the case."`
	Reason string    `required:"" help:"Which authority asked, and why; readable in the log's folder: name nobody."`
}

// Run asks the daemon.
func (a *logHoldAddCmd) Run(c Host) error {
	return c.Ask("log/hold", registerArgument{Actor: admin.Actor(), Log: a.Log, From: a.From, To: a.To, Case: a.Case, Reason: a.Reason})
}

type logHoldReleaseCmd struct {
	which
	Number int    `arg:"" help:"Number of the hold, from custode log status."`
	Reason string `required:"" help:"Why; kept in the security log."`
}

// Run asks the daemon.
func (a *logHoldReleaseCmd) Run(c Host) error {
	return c.Ask("log/release", registerArgument{Actor: admin.Actor(), Log: a.Log, Number: a.Number, Reason: a.Reason})
}

type logAttestCmd struct {
	Subject string    `required:"" help:"spidCode of the subject."`
	Name    string    `help:"Name of the subject, for the report."`
	From    time.Time `required:"" format:"2006-01-02" help:"First day (UTC)." placeholder:"DATE"`
	To      time.Time `required:"" format:"2006-01-02" help:"Day after the last (UTC)." placeholder:"DATE"`
	Out     string    `type:"path" help:"ZIP to write; must not exist. Default: attestation-SPIDCODE.zip here."`
}

// Run asks the daemon, which writes the file: it is the daemon's user's.
func (a *logAttestCmd) Run(c Host) error {
	if a.Out == "" {
		here, err := os.Getwd()
		if err != nil {
			return fault.New(fault.Unavailable, "find this folder", err)
		}
		a.Out = filepath.Join(here, "attestation-"+filepath.Base(a.Subject)+".zip")
	}
	return await(c, "log/attest", registerArgument{Actor: admin.Actor(), Subject: a.Subject, Name: a.Name, From: a.From, To: a.To, Out: a.Out})
}

type logBenchCmd struct {
	Dir     string `type:"existingdir" help:"Folder on the disk to measure; default: the machine file's."`
	Records int    `default:"100000" help:"Records to append."`
	Writers int    `default:"64" help:"Logins that append at once."`
}

// Run measures and prints one JSON object; times are in seconds.
func (a *logBenchCmd) Run(c Host) error {
	if a.Dir == "" {
		machine, err := c.MachineFile()
		if err != nil {
			return err
		}
		a.Dir = machine.CertifiedLog.Directory
	}
	r, err := trial.Run(context.Background(), trial.Config{Dir: a.Dir, Records: a.Records, Writers: a.Writers})
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(map[string]any{
		"records": r.Records, "writers": a.Writers, "append": r.Append.Seconds(), "appendsPerSecond": float64(r.Records) / r.Append.Seconds(),
		"p50": r.P50.Seconds(), "p95": r.P95.Seconds(), "p95Alone": r.P95Alone.Seconds(),
		"octetsOnDisk": r.Octets, "octetsPlain": r.PlainOctets, "verify": r.Verify.Seconds(),
		"heapBefore": r.HeapBefore, "heapAfter": r.HeapAfter, "heapVerify": r.HeapVerify,
	}, "", "  ")
	if err != nil {
		return fault.New(fault.Internal, "print the figures", err)
	}
	fmt.Println(string(text))
	return nil
}
