// A confirmation in a dialog instead of a page of its own: the same HTML, fetched from the same address.
let dialog;

export function openDialogs() {
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[data-dialog]");
    const plain = event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey && !event.altKey;
    if (!link || !plain) return;
    event.preventDefault();
    show(fetch(link.href, { headers: { Accept: "text/html" } }), link.href);
  });
}

// A form goes out once, however often it is clicked; its request_id makes sure of it on the other side too.
export function sendOnce(within) {
  for (const form of within.querySelectorAll("form[data-once]")) {
    form.addEventListener("submit", (event) => {
      if (form.dataset.sent) {
        event.preventDefault();
        return;
      }
      form.dataset.sent = "yes";
      form.setAttribute("aria-busy", "true");
    });
  }
  addEventListener("pageshow", () => {
    for (const form of within.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
  });
}

async function show(answer, address) {
  let response;
  try {
    response = await answer;
  } catch {
    location.assign(address);
    return;
  }
  if (response.redirected) {
    location.assign(response.url);
    return;
  }
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const confirm = page.getElementById("confirm");
  if (!confirm) {
    location.assign(address);
    return;
  }
  if (!dialog) {
    dialog = document.body.appendChild(document.createElement("dialog"));
    dialog.setAttribute("aria-labelledby", "dialog-title");
    dialog.addEventListener("close", () => dialog.replaceChildren());
  }
  confirm.querySelector("h1").id = "dialog-title";
  dialog.replaceChildren(confirm);
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  sendOnce(dialog);
  for (const close of dialog.querySelectorAll("[data-close]")) {
    close.addEventListener("click", (event) => {
      event.preventDefault();
      dialog.close();
    });
  }
  for (const form of dialog.querySelectorAll("form")) {
    form.addEventListener("submit", (event) => {
      if (event.defaultPrevented) return;
      event.preventDefault();
      const body = new URLSearchParams(new FormData(form));
      for (const button of form.querySelectorAll("button")) button.disabled = true;
      show(fetch(form.action, { method: "POST", body, headers: { Accept: "text/html" } }), address);
    });
  }
  (dialog.querySelector("[data-focus]") ?? dialog.querySelector("textarea, button, a"))?.focus();
}
