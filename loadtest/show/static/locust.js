// Puts our options into their groups in Locust's form, with a name that reads well and the help below it.
//
// Locust makes a name of the option ("Knee P9 9") and puts all of the help behind it, in one order of the
// alphabet. The fields stay Locust's own, in their places in the document: they are put in order by style,
// because what React made must not be moved. Where Locust's page changes, it is shown as Locust has it.
(() => {
  const groups = JSON.parse(document.getElementById("tcp-options").textContent);

  const arrange = () => {
    const places = new Set();
    let order = 0;
    for (const [title, options] of groups) {
      order += 1;
      let heading;
      for (const { field, name, help } of options) {
        order += 1;
        const input = document.querySelector(`[name="${field}"]`);
        const control = input?.closest(".MuiFormControl-root, .MuiFormControlLabel-root");
        if (!control) continue;
        const place = control.parentElement;
        places.add(place);
        if (control.style.order === String(order)) continue;
        if (!heading) {
          heading = document.createElement("div");
          heading.className = "tcp-group";
          heading.textContent = title;
          heading.style.order = String(order - 1);
          place.append(heading);
        }
        control.style.order = String(order);
        const label = control.querySelector("label, .MuiFormControlLabel-label");
        if (label) label.textContent = name;
        else if (control.lastChild) control.lastChild.textContent = name;
        const legend = control.querySelector("legend span");
        if (legend) legend.textContent = name;
        if (control.matches(".MuiFormControl-root")) {
          const text = document.createElement("p");
          text.className = "tcp-help";
          text.textContent = help;
          control.append(text);
        } else {
          const text = document.createElement("div");
          text.className = "tcp-help";
          text.textContent = help;
          text.style.order = String(order);
          place.append(text);
        }
      }
    }
  };

  new MutationObserver(arrange).observe(document.getElementById("root"), { childList: true, subtree: true });
  arrange(); // the form may be there already, and change no more
})();
