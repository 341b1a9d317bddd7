// Follows a run under way: puts the newest state in the place of the last one, and stays where the reader is.
"use strict";
const SECONDS = 2;

async function follow() {
  const place = document.getElementById("live");
  if (!place) return;
  if (!document.hidden) {
    try {
      const answer = await fetch(location.href, { cache: "no-store" });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const newest = page.getElementById("live");
      if (!answer.ok || !newest) return location.reload();
      document.getElementById("lost").hidden = true;
      place.replaceWith(document.adoptNode(newest));
      document.title = page.title;
    } catch {
      document.getElementById("lost").hidden = false;
    }
  }
  setTimeout(follow, SECONDS * 1000);
}
setTimeout(follow, SECONDS * 1000);
