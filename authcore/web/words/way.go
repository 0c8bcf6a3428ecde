package words

// Way is a second factor in words. Kind is sms, token, app or push.
type Way struct {
	Kind   string
	Name   string // masked number or serial number
	Digits int
	Number string // of a pushed code
}

// Label is how the choice of method names it.
func (w Way) Label(b Book) string { return b.text("method."+w.Kind, w.Name) }

// Help says what will be asked for.
func (w Way) Help(b Book) string {
	if w.Kind == "token" || w.Kind == "app" {
		return b.text("method.help."+w.Kind, w.Digits)
	}
	return b.text("method.help." + w.Kind)
}

// Lead says which code is asked for.
func (w Way) Lead(b Book) string {
	switch w.Kind {
	case "token", "app":
		return b.text("code.lead."+w.Kind, w.Digits, w.Name)
	case "push":
		return b.text("code.lead.push", w.Name, w.Number)
	}
	return b.text("code.lead", w.Name)
}

// Used says with what the person has logged in.
func (w Way) Used(b Book) string {
	return b.text("consent.used", b.text("used."+w.Kind, w.Name))
}
