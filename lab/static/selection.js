// The ticked rows of the table: how many, and which of the buttons they suit.
export function watchSelection() {
  const form = document.getElementById("selection");
  if (!form) return;
  const text = document.getElementById("selected");
  const hint = text.textContent;
  const show = () => {
    const count = form.querySelectorAll('input[name="model"]:checked').length;
    text.textContent = count === 0 ? hint : count === 1 ? "1 model chosen" : `${count} models chosen`;
    for (const button of form.querySelectorAll("button[data-fewest]")) {
      button.disabled = count < Number(button.dataset.fewest) || count > Number(button.dataset.most);
    }
  };
  form.addEventListener("change", show);
  // a page that the browser kept comes back with its ticks
  addEventListener("pageshow", show);
  show();
}
