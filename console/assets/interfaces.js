// The settings were refused: their form is open again, as it was typed.
document.getElementById("settings")?.showModal();
