// Takes the next step of a logout; without scripts the button does.
document.getElementById("next").submit();
