// Renews banner and main part each second. Plain old script: it must run on an old tablet.
(function () {
  "use strict";
  var gone = document.getElementById("gone"), banner = document.getElementById("banner"), live = document.getElementById("live");
  var hold = document.getElementById("hold"), page = document.body.getAttribute("data-live");
  var heard = Date.now(), held = false, pressed = false, waiting = null;
  // A picture that is gone says so. It may not have been written yet, so it is asked for a few times.
  var lost = {}, TRIES = 5;
  function miss(image) {
    var text = document.createElement("span");
    text.className = "nopicture";
    text.textContent = "picture not kept";
    image.parentNode.replaceChild(text, image);
  }
  document.addEventListener("error", function (event) {
    var image = event.target;
    if (!image || image.tagName !== "IMG") { return; }
    lost[image.getAttribute("src")] = (lost[image.getAttribute("src")] || 0) + 1;
    miss(image);
  }, true);

  // Trying a picture: it can be dropped anywhere, and one that is too large is not sent.
  var form = document.getElementById("try");
  if (form) {
    var input = form.elements.picture, said = document.getElementById("said"), largest = Number(form.getAttribute("data-largest"));
    var look = function () {
      var file = input.files[0], large = file && file.size > largest - 4096;
      if (file) { said.textContent = large ? file.name + " is too large." : file.name; }
      input.setCustomValidity(large ? "This picture is too large." : "");
    };
    input.addEventListener("change", look);
    document.addEventListener("dragover", function (event) { event.preventDefault(); document.body.classList.add("over"); });
    document.addEventListener("dragleave", function () { document.body.classList.remove("over"); });
    document.addEventListener("drop", function (event) {
      event.preventDefault();
      document.body.classList.remove("over");
      if (event.dataTransfer && event.dataTransfer.files.length) { input.files = event.dataTransfer.files; look(); }
    });
    form.addEventListener("submit", function () { said.textContent = "Looking at it; the first time takes some seconds ..."; });
  }

  var printer = document.getElementById("print");
  if (printer) { printer.hidden = false; printer.onclick = function () { window.print(); }; }

  if (!document.body.classList.contains("moves")) { live = null; }
  if (!window.EventSource || !page) { return; }

  function show() {
    if (waiting === null || held || pressed) { return; }
    var focused = document.activeElement, href = focused && live.contains(focused) ? focused.getAttribute("href") : null;
    var shown = {}, images = live.querySelectorAll("img"), i;
    for (i = 0; i < images.length; i++) { shown[images[i].getAttribute("src")] = images[i]; }
    live.innerHTML = waiting;
    waiting = null;
    images = live.querySelectorAll("img");
    for (i = 0; i < images.length; i++) {
      var src = images[i].getAttribute("src"), before = shown[src];
      if (lost[src] >= TRIES) { miss(images[i]); }
      else if (before && !live.contains(before)) { images[i].parentNode.replaceChild(before, images[i]); }  // or it would flicker
    }
    if (href) {
      var links = live.getElementsByTagName("a");
      for (i = 0; i < links.length; i++) { if (links[i].getAttribute("href") === href) { links[i].focus(); break; } }
    }
  }

  var source = new EventSource("/live/" + page + (live ? window.location.search : ""));
  source.onmessage = function (message) {
    heard = Date.now();
    gone.hidden = true;
    document.body.classList.remove("gone");
    var said = JSON.parse(message.data);
    if (said.ended) { window.location.reload(); return; }
    if (said.banner === undefined) { return; }
    banner.innerHTML = said.banner;
    if (live) {
      document.title = said.title.replace(/&amp;/g, "&");
      waiting = said.live;
      show();
    }
  };
  window.setInterval(function () {
    if (Date.now() - heard > 4000) { gone.hidden = false; document.body.classList.add("gone"); }
  }, 500);
  window.addEventListener("beforeunload", function () { source.close(); });

  if (!live) { return; }
  document.addEventListener("mousedown", function () { pressed = true; });
  document.addEventListener("touchstart", function () { pressed = true; });
  function release() { window.setTimeout(function () { pressed = false; show(); }, 400); }
  document.addEventListener("mouseup", release);
  document.addEventListener("touchend", release);
  document.addEventListener("touchcancel", release);
  hold.hidden = false;
  hold.onclick = function () {
    held = !held;
    hold.className = held ? "on" : "";
    hold.textContent = held ? "Held – go on" : "Hold";
    show();
  };
}());
