package spsim

import (
	"errors"
	"fmt"
	"net/http"
)

// problem is an error page.
type problem struct {
	Title, Badge, Heading, Text, Detail string
	Outcome                             string
}

// anomalyText is the sentence shown for an anomaly the person can understand;
// the others are faults of the request and get a common text.
var anomalyText = map[int]string{
	19: "Le credenziali inserite non erano corrette e i tentativi sono finiti. Riprova con le credenziali corrette.",
	20: "La tua identità non ha credenziali del livello richiesto da questo servizio.",
	21: "È passato troppo tempo prima di completare l'autenticazione. Riprova.",
	22: "Non hai dato il consenso all'invio dei dati: senza, il servizio non è disponibile.",
	23: "La tua identità o le tue credenziali sono sospese, revocate o bloccate. Rivolgiti al tuo gestore di identità.",
	25: "Hai annullato l'accesso.",
	30: "Hai usato un tipo di identità diverso da quello richiesto da questo servizio.",
}

func (sp *SP) showFailure(w http.ResponseWriter, failure error) {
	var anomaly *StatusError
	if errors.As(failure, &anomaly) {
		text, ok := anomalyText[anomaly.Anomaly]
		if !ok {
			text = "Il gestore di identità non ha accettato la richiesta di questo servizio. Riprova più tardi o avvisa il Comune."
		}
		sp.showProblem(w, http.StatusForbidden, problem{
			Title: "Accesso non riuscito", Outcome: "anomalia",
			Badge: fmt.Sprintf("Anomalia SPID n. %d", anomaly.Anomaly), Heading: "Accesso non riuscito",
			Text: text, Detail: anomaly.Message,
		})
		return
	}
	sp.showProblem(w, http.StatusForbidden, problem{
		Title: "Risposta rifiutata", Outcome: "rifiuto",
		Badge: "Risposta rifiutata", Heading: "La risposta del gestore non è valida",
		Text: "Per la tua sicurezza il Comune non l'ha accettata.", Detail: failure.Error(),
	})
}

func (sp *SP) showProblem(w http.ResponseWriter, status int, p problem) {
	if p.Title == "" {
		p.Title = p.Heading
	}
	sp.show(w, status, "errore", "form-action 'none'", struct {
		frame
		Badge, Heading, Text, Detail string
	}{sp.frame(p.Title, p.Outcome), p.Badge, p.Heading, p.Text, p.Detail})
}
