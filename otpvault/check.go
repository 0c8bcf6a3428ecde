package otpvault

import "time"

// CheckText returns fault.Invalid when New would refuse text as the Template of
// codes that live so long; for those who check a configuration. Empty text is
// the default template.
func CheckText(text string, lifetime time.Duration) error {
	if text == "" {
		text = DefaultTemplate
	}
	_, err := parseTemplate(text, int(lifetime/time.Minute))
	return err
}
