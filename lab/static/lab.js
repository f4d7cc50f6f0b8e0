// What makes the pages lively; each works without it.
import { drawAll, redrawAll } from "./charts.js";
import { openDialogs, sendOnce } from "./dialogs.js";
import { refreshOnChange } from "./refresh.js";
import { watchSelection } from "./selection.js";
import { watchTheme } from "./toggle.js";

watchTheme(redrawAll);
watchSelection();
openDialogs();
sendOnce(document);
drawAll(document);
refreshOnChange();

for (const form of document.querySelectorAll("form[data-submits]")) {
  form.querySelector("button").hidden = true;
  form.addEventListener("change", () => form.requestSubmit());
}
for (const button of document.querySelectorAll("button[data-copy]")) {
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = "Copied";
  });
}
document.querySelector("[data-focus]")?.focus();
